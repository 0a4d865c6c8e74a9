"""The folder of a run: what a new run in its place leaves of the old one."""

from __future__ import annotations

from pathlib import Path

from edgecnn.train.folder import CURVES, RUN, STATE, open_folder


def test_restart_leaves_nothing_of_the_old_run(tmp_path: Path) -> None:
    """A run that was killed before it ended, with curves, and a state that was half written."""
    out = tmp_path / "run"
    for folder in (CURVES, STATE, f".{STATE}.12.tmp"):
        (out / folder).mkdir(parents=True)
        (out / folder / "file").write_bytes(b"x")
    for name in (RUN, ".weights.12.tmp"):
        (out / name).write_text("{}")
    assert open_folder(out, {"lr": 0.1}, restart=True) is None
    assert list(out.iterdir()) == []
