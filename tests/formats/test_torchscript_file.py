"""Tests of TorchScript files on a disk that is full."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from edgecnn.formats.torchscript import save


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path, largest_file) -> None:
    """As it is where torch writes the file itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(torch.nn.Linear(100, 100), torch.zeros(1, 100))
        with largest_file(5_000), pytest.raises(OSError, match="too large"):
            save(module, tmp_path / "net.pt", {"facts": "{}"})
        save(module, tmp_path / "net.pt", {"facts": "{}"})
        found = {"facts": ""}
        again = torch.jit.load(str(tmp_path / "net.pt"), _extra_files=found)
    assert found["facts"] in ("{}", b"{}")
    assert torch.equal(again(torch.ones(1, 100)), module(torch.ones(1, 100)))
