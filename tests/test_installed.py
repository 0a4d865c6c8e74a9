"""Libraries: what formats, quantizers and engines declare is what pyproject installs and what the records tell."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgecnn import __version__, formats, installed, quantize, runtimes
from edgecnn.bench.host import fingerprint
from edgecnn.errors import MissingExtra, UserError
from edgecnn.export import tools_here
from edgecnn.installed import installed_versions, is_installed, module_of, need
from edgecnn.origin import install_command
from edgecnn.quantize.ladder import Quantizer

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def in_extra(extra: str | None) -> set[str]:
    """Libraries that an extra installs, those of the extras that it names and of the base included."""
    found = {_name(line) for line in PROJECT["dependencies"]}
    for line in PROJECT["optional-dependencies"][extra] if extra else ():
        named = re.match(r"edgecnn\[(.+)\]", line)
        found |= set().union(*map(in_extra, named[1].split(","))) if named else {_name(line)}
    return found


def _name(requirement: str) -> str:
    return re.split(r"[\s\[<>=;!~]", requirement)[0]


def hint(library: str, extra: str) -> str:
    """A pattern of what is said where a library is missing."""
    return re.escape(f"{library} is not installed: {install_command(extra)}")


def quantizer(name: str) -> Quantizer:
    module = importlib.import_module(f"edgecnn.quantize.engines.{name}")
    found: Quantizer = module.QUANTIZER
    return found


def declared() -> Iterable[tuple[str, str | None, tuple[str, ...]]]:
    for name in formats.names():
        yield f"format {name}", formats.get(name).extra, formats.get(name).libraries
    for name in quantize.names():
        yield f"int8 of {name}", quantizer(name).extra, quantizer(name).libraries
    for name in runtimes.names():
        if runtimes.get(name).missing is None:  # no extra can install it
            yield f"runtime {name}", runtimes.get(name).extra, runtimes.get(name).libraries


@pytest.mark.parametrize(("who", "extra", "libraries"), list(declared()), ids=[row[0] for row in declared()])
def test_the_extra_that_is_named_installs_every_library(
    who: str, extra: str | None, libraries: tuple[str, ...]
) -> None:
    assert libraries, who
    assert set(libraries) <= in_extra(extra)


@pytest.mark.parametrize("name", runtimes.names())
def test_a_run_records_the_version_of_its_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every engine there is, whether this machine has it or not: else an upgrade would not be seen."""
    version = importlib.metadata.version
    engine = runtimes.get(name).library
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: "9.8.7" if asked == engine else version(asked))
    assert fingerprint().libraries[engine] == "9.8.7"


def test_a_bundle_records_the_version_of_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: "9.8.7")
    everything = {library for _, _, libraries in declared() for library in libraries}
    assert everything <= tools_here().keys()


def test_what_another_distribution_provides_is_recorded_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu, openvino-nightly, …: a run must not look as if no engine had a part in it."""
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3" if name == "onnxruntime-gpu" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu", "onnxruntime-gpu"]}
    )
    assert installed_versions(["onnxruntime"])["onnxruntime"] == "onnxruntime-gpu 1.2.3"
    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    assert installed_versions(["onnxruntime"])["onnxruntime"] == "unknown"


def test_what_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_versions(["numpy", "no-such-library", "numpy"]).keys() == {"edgecnn", "numpy"}
    assert installed_versions([]) == {"edgecnn": __version__}


def test_module_names() -> None:
    assert [module_of(name) for name in ("ai-edge-litert", "Pillow", "scikit-learn", "cuda-bindings")] == [
        *("ai_edge_litert", "PIL", "sklearn", "cuda.bindings"),
    ]
    assert all(is_installed(name) for name in installed.PREPARING)
    assert not is_installed("no-such-library")


def test_a_library_inside_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=hint("cuda-bindings", "tensorrt")):
        need("tensorrt", "cuda-bindings")


def test_the_first_missing_library_is_named() -> None:
    need("train", "numpy")
    with pytest.raises(UserError, match=hint("no-such", "train")):
        need("train", "numpy", "no-such", "nor-this")
