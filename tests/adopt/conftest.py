"""Descriptions of what somebody else's network wants."""

from __future__ import annotations

from pathlib import Path

import pytest


def toml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GOOD_TOML = "height = 8\nwidth = 8\nmean = [0.5, 0.4, 0.3]\nstd = [0.2, 0.25, 0.3]\n"


@pytest.fixture
def pre(tmp_path: Path) -> Path:
    return toml(tmp_path / "pre.toml", GOOD_TOML)
