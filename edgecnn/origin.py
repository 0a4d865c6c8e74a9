"""Where this edgecnn was installed from, and so the command that installs an extra of it there."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SOURCE = Path(__file__).resolve().parents[1]


def install_command(*extras: str) -> str:
    """What to type for these extras, such as `pip install -e '/src/edgecnn[litert]'`; without any: for edgecnn itself.

    A wheel file and a folder are named by their paths, an index by nothing (PEP 610: direct_url.json). Where that file
    is gone, the libraries of the extras are named instead. The pip is this environment's, named by its Python where
    another one would be found first.
    """
    wanted = [one for extra in extras for one in extra.split(",") if one]
    option, place, separator = _origin()
    if wanted and place.startswith("/") and not Path(place).exists():
        return f"{pip()} install {' '.join(shlex.quote(one) for one in sorted(_libraries(wanted)))}"
    names = f"[{','.join(dict.fromkeys(wanted))}]" if wanted else ""
    what = f"edgecnn{names} @ {place}" if separator else f"{place}{names}"
    return f"{pip()} install {option}{shlex.quote(what)}"


def pip() -> str:
    """pip where that is this environment's: Debian's own refuses, and another environment's helps nobody."""
    found = shutil.which("pip")
    here = Path(sys.executable).parent
    if found is not None and Path(found).parent.resolve() == here.resolve():
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"


def _origin() -> tuple[str, str, bool]:
    """(option of pip, what it installs, whether that is an address that follows a name)."""
    told = _direct_url()
    if told is None:
        return ("-e ", str(_SOURCE), False) if _runs_from_checkout() else ("", "edgecnn", False)
    url = str(told.get("url", ""))
    if "vcs_info" in told:
        return "", f"{told['vcs_info'].get('vcs', 'git')}+{url}", True
    if not url.startswith("file:"):
        return "", url, True
    path = unquote(urlsplit(url).path)
    return "-e " if told.get("dir_info", {}).get("editable") else "", path, False


def _direct_url() -> dict[str, dict[str, str]] | None:
    """What pip noted of where it had edgecnn from; None where that was an index, or where it is not installed."""
    try:
        text = importlib.metadata.distribution("edgecnn").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    told = json.loads(text) if text else None
    return told if isinstance(told, dict) else None


def _libraries(extras: Collection[str]) -> set[str]:
    """What these extras install, with their least versions, from the metadata of the installed edgecnn."""
    found: set[str] = set()
    for line in importlib.metadata.requires("edgecnn") or ():
        requirement, _, marker = line.partition(";")
        of = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if of is None or of[1] not in extras:
            continue
        others = re.match(r"edgecnn\[(.+)\]", requirement)
        found |= _libraries(others[1].split(",")) if others else {requirement.strip()}
    return found


def _runs_from_checkout() -> bool:
    """Whether this code lies beside its pyproject.toml, and not among installed packages."""
    return (_SOURCE / "pyproject.toml").is_file()
