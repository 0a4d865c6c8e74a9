"""The profiles that come with edgecnn: where they are and what they are called, without reading one."""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).parent / "_profiles"
_REPOSITORY = Path(__file__).parent.parent


def profiles_folder(name: str) -> Path:
    """Profiles ship in the wheel; in a checkout they are the top-level folders themselves."""
    packaged = _PACKAGED / name
    return packaged if packaged.is_dir() else _REPOSITORY / name


def target_names() -> list[str]:
    """Names of the targets that come with edgecnn."""
    return sorted(path.stem for path in profiles_folder("export").glob("*.toml"))
