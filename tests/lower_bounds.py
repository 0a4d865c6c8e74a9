"""Prints the least versions that pyproject.toml promises, as pip takes them: python tests/lower_bounds.py [extra …]."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lower_bounds(extras: list[str]) -> list[str]:
    """`name==version` of the base install and of these extras. ValueError for a dependency without a lower bound."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    found = []
    for line in lines:
        bound = re.match(r"([\w.-]+(?:\[[\w,]+\])?)>=([\w.]+)", line)
        if bound:
            found.append(f"{bound[1]}=={bound[2]}")
        elif not line.startswith("edgecnn["):
            raise ValueError(f"{line}: has no lower bound")
    return found


if __name__ == "__main__":
    print(*lower_bounds(sys.argv[1:]))
