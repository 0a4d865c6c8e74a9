"""The command that installs an extra: right for where this edgecnn came from, whatever is in the path."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn import origin
from edgecnn.cli.show import findings, show_table
from edgecnn.errors import MissingExtra
from edgecnn.origin import install_command

REQUIRES = [
    "numpy>=2.0",
    "torch>=2.9; extra == 'train'",
    'ai-edge-litert>=2.0.2; extra == "litert"',
    "edgecnn[train,litert]; extra == 'export-litert'",
    "litert-torch>=0.10; extra == 'export-litert'",
]


@pytest.fixture
def came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[object], None]:
    """came_from(what direct_url.json holds); None: an index."""
    (tmp_path / "pip").write_text("#!/bin/sh\n")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    class Installed:
        def __init__(self, text: str | None) -> None:
            self.text = text

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    def note(content: object) -> None:
        text = None if content is None else json.dumps(content)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(text))
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
        monkeypatch.setattr(origin, "_runs_from_checkout", lambda: False)

    return note


def test_an_index(came_from: Callable[[object], None]) -> None:
    came_from(None)
    assert install_command("litert") == "pip install 'edgecnn[litert]'"
    assert install_command("train,report", "train") == "pip install 'edgecnn[train,report]'"
    assert install_command() == "pip install edgecnn"


def test_a_wheel_is_named_by_its_path(came_from: Callable[[object], None], tmp_path: Path) -> None:
    wheel = tmp_path / "my wheels" / "edgecnn-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    came_from({"url": wheel.as_uri(), "archive_info": {}})
    assert install_command("litert") == f"pip install '{wheel}[litert]'"
    assert shlex.split(install_command("litert"))[-1] == f"{wheel}[litert]"


def test_of_a_wheel_that_is_gone_the_libraries_are_named(came_from: Callable[[object], None], tmp_path: Path) -> None:
    came_from({"url": (tmp_path / "edgecnn-0.1.0-py3-none-any.whl").as_uri(), "archive_info": {}})
    assert install_command("litert") == "pip install 'ai-edge-litert>=2.0.2'"
    assert install_command("export-litert") == "pip install 'ai-edge-litert>=2.0.2' 'litert-torch>=0.10' 'torch>=2.9'"


@pytest.mark.parametrize(("editable", "option"), [(True, "-e "), (False, "")])
def test_a_checkout(came_from: Callable[[object], None], tmp_path: Path, editable: bool, option: str) -> None:
    came_from({"url": tmp_path.as_uri(), "dir_info": {"editable": editable}})
    assert install_command("litert") == f"pip install {option}'{tmp_path}[litert]'"


def test_addresses_follow_the_name(came_from: Callable[[object], None]) -> None:
    came_from({"url": "https://example.org/edgecnn.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}})
    assert install_command("litert") == "pip install 'edgecnn[litert] @ git+https://example.org/edgecnn.git'"
    came_from({"url": "https://example.org/edgecnn-0.1.0-py3-none-any.whl", "archive_info": {}})
    assert (
        install_command("train") == "pip install 'edgecnn[train] @ https://example.org/edgecnn-0.1.0-py3-none-any.whl'"
    )


def test_a_folder_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", none)
    checkout = Path(__file__).resolve().parents[1]
    assert install_command("litert").endswith(f"pip install -e {shlex.quote(f'{checkout}[litert]')}")


def test_the_pip_is_this_environments(
    came_from: Callable[[object], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    came_from(None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "other" / "python"))
    assert install_command("litert") == f"{tmp_path}/other/python -m pip install 'edgecnn[litert]'"


def test_brackets_survive_the_screen(
    came_from: Callable[[object], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    came_from(None)
    assert str(MissingExtra("ai-edge-litert", "litert")) == (
        "ai-edge-litert is not installed: pip install 'edgecnn[litert]'"
    )
    show_table(findings([("engine litert", "ai-edge-litert: not installed", install_command("litert"))]))
    assert "pip install 'edgecnn[litert]'" in capsys.readouterr().out
