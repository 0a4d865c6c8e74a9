"""Versions of installed libraries, for the records."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from edgecnn import __version__


def installed_versions(libraries: Iterable[str]) -> dict[str, str]:
    """edgecnn's version and those of the libraries (distribution names) that are installed."""
    versions = {"edgecnn": __version__}
    for name in libraries:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
