"""The pages are true of themselves: what they link to is there, and what they say to install is enough."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edgecnn import formats, runtimes
from edgecnn.profiles import load_target
from edgecnn.quantize import get as quantizer

REPOSITORY = Path(__file__).parents[1]

PAGES = [
    *REPOSITORY.glob("*.md"),
    *(page for top in ("docs", "export", "deploy") for page in (REPOSITORY / top).glob("*.md")),
]


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]*)(#[^)]+)?\)", page.read_text(encoding="utf-8")):
        name, anchor = link
        if name.startswith("http"):
            continue
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{name} is not there"
        if anchor:
            assert anchor[1:] in _anchors(there), f"{name}{anchor}: no such heading"


def test_what_the_readme_installs_is_enough_for_its_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    asked = re.search(r"pip install '\.\[([\w,-]+)\]'", readme)
    assert asked is not None
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {_name(one) for one in project["dependencies"]}
    for extra in _extras(asked[1].split(","), project["optional-dependencies"]):
        installed |= {_name(one) for one in project["optional-dependencies"][extra]}
    needed = set()
    for spec in load_target("desktop-cpu").variants:
        made_by = quantizer(spec.format) if spec.precision == "int8" else formats.get(spec.format)
        needed |= {*made_by.libraries, *runtimes.get(spec.runtime).libraries}
    assert {_name(one) for one in needed} <= installed


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def _extras(asked: list[str], known: dict[str, list[str]]) -> set[str]:
    """With those that they name in turn: edgecnn[train]."""
    found = set(asked)
    for name in asked:
        for requirement in known[name]:
            if inner := re.match(r"edgecnn\[([\w,-]+)\]", requirement):
                found |= _extras(inner[1].split(","), known)
    return found
