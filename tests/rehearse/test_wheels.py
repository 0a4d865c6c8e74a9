"""The engines' aarch64 wheels."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import UserError
from edgecnn.rehearse import wheels
from edgecnn.rehearse.debian import BOOKWORM


def silent(line: str) -> None:
    pass


def fake_download(refuse: int = 0) -> tuple[Any, list[tuple[list[str], bool]]]:
    """A `_download` that refuses so often, then writes two wheels; and what it was asked for."""
    asked: list[tuple[list[str], bool]] = []

    def download(requirements: list[str], installed: dict[str, str], release: Any, folder: Path) -> str | None:
        asked.append((list(requirements), bool(installed)))
        if len(asked) <= refuse:
            return "No matching distribution found for engine"
        for name in ("the_engine-2.0-cp311-cp311-manylinux_2_28_aarch64.whl", "numpy-2.4-cp311-none-any.whl"):
            with zipfile.ZipFile(folder / name, "w") as archive:
                for member in (f"{name.split('-')[0]}/__init__.py", f"{name.split('-')[0]}.data/platlib/moved.py"):
                    archive.writestr(zipfile.ZipInfo(member), "")  # of a fixed date: the same bytes each time
        return None

    return download, asked


def test_wheels_are_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    download, asked = fake_download()
    monkeypatch.setattr(wheels, "_download", download)
    for _ in range(2):
        found = wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    assert len(asked) == 1
    assert found.set.version == "2.0"
    assert found.set.pinned
    for folder in found.folders:
        assert (folder / "moved.py").is_file()
    assert wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, True, silent) == found
    assert not list(tmp_path.rglob(".*"))


def test_where_the_installed_versions_are_not_to_be_had_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    download, asked = fake_download(refuse=2)
    monkeypatch.setattr(wheels, "_download", download)
    found = wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    assert not found.set.pinned
    assert [pinned for _, pinned in asked] == [True, False, False]
    assert any(word.startswith("numpy==") for word in asked[0][0])
    assert not any("==" in word for word in asked[2][0])


def test_no_wheel_for_the_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wheels, "_download", fake_download(refuse=9)[0])
    with pytest.raises(wheels.NoWheel, match=r"no aarch64 wheel of the-engine for Python 3\.11: No matching"):
        wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    with pytest.raises(wheels.NoWheel, match="torch is not rehearsed"):
        wheels.fetch_wheels(tmp_path, "torch", BOOKWORM, False, silent)
    assert not list((tmp_path / "wheels-3.11").iterdir())


def test_wheels_that_are_gone_are_named_and_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wheels, "_download", fake_download()[0])
    found = wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    shutil.rmtree(found.folders[0])
    with pytest.raises(UserError, match="run again"):
        wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent)
    assert wheels.fetch_wheels(tmp_path, "the-engine", BOOKWORM, False, silent) == found


@pytest.mark.parametrize(
    ("stderr", "outcome"),
    [
        ("ERROR: No matching distribution found for x==1", "No matching distribution found for x==1"),
        ("WARNING: Retrying: Connection refused\nERROR: No matching distribution found for x", UserError),
        ("ERROR: Could not install packages due to an OSError", UserError),
        ("", UserError),
    ],
)
def test_what_pip_complains_of(stderr: str, outcome: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *words, **options: done)
    if outcome is UserError:
        with pytest.raises(UserError, match="check the network"):
            wheels._download(["x"], {}, BOOKWORM, tmp_path)
    else:
        assert wheels._download(["x"], {}, BOOKWORM, tmp_path) == outcome
