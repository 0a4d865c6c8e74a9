"""The public interface: light to import, the same whatever was imported before, and its examples run."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn import api, predictor, shipped
from edgecnn.cli.reading import READING
from edgecnn.cli.training import _OPTIONS
from edgecnn.errors import UserError
from tests.conftest import encode, picture
from tests.pages import examples
from tests.training import write_images

TARGET = """
name = "desktop-cpu"
description = "Two variants, and a limit that a network of one epoch stays within"
machine = "x86_64"
threads = 1
budget = "30ms@p99"
accuracy_loss_limit = 90.0
int8_agreement = 0.01
int8_minutes = 0.01
calibration_images = 12
variants = [
  { format = "onnx", precision = "fp32", runtime = "onnxruntime" },
  { format = "onnx", precision = "int8", runtime = "onnxruntime" },
]
"""
MISUSES = {"bench": "('nowhere')", "export": "('nowhere', out='bundle')", "verify": "('nowhere', 'parts')"}
"""Of the names that are functions and modules: a call that the function refuses at once."""
ORDERS = {
    "the module later": "from edgecnn import {name} as function; import edgecnn.{name}; assert edgecnn.{name}.{name}",
    "the module first": "import edgecnn.{name}; from edgecnn import {name} as function",
    "the module under another name": "import edgecnn.{name} as module; assert module.{name}; function = module",
    "its own function first": "from edgecnn.{name} import {name}; from edgecnn import {name} as function",
    "by attribute": "function = edgecnn.{name}",
    "all names": "from edgecnn import *; function = {name}",
}
SLOW = ("export",)
"""It loads torch: only the first order is tried."""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import edgecnn; edgecnn.__version__, dir(edgecnn); "
        "print(*sorted(name for name in set(sys.modules) - before - {'__future__'} if sys.modules[name]))"
    )
    assert python(code).split() == ["edgecnn", "edgecnn.telemetry"]


def test_every_name_is_there_for_people_and_for_type_checkers() -> None:
    tree = ast.parse(inspect.getsource(edgecnn))
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    lines = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    imported = {str(line.module): tuple(one.name for one in line.names) for line in lines}
    assert imported == edgecnn._HOMES
    assert sorted(name for names in imported.values() for name in names) == sorted(edgecnn.__all__)
    assert set(edgecnn.__all__) <= set(dir(edgecnn))
    assert all(getattr(edgecnn, name) is not None for name in edgecnn.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        edgecnn.nothing  # noqa: B018


@pytest.mark.parametrize("name", MISUSES)
def test_a_name_of_a_function_and_a_module_is_both_in_whatever_order(name: str) -> None:
    for order, code in list(ORDERS.items())[: 1 if name in SLOW else None]:
        use = f"""
import inspect, pickle
import edgecnn
from edgecnn.api import {name} as meant
{code.format(name=name)}
for one in (function, edgecnn.{name}):
    assert callable(one)
    assert inspect.signature(one) == inspect.signature(meant)
    try:
        one{MISUSES[name]}
    except edgecnn.UserError as error:
        assert 'nowhere' in str(error), error
    else:
        raise SystemExit('not refused')
    assert pickle.loads(pickle.dumps(one)) in (one, edgecnn.{name})
import edgecnn.{name} as module
assert inspect.ismodule(module) and module.__name__ == 'edgecnn.{name}', module
print('fine')
"""
        assert python(use) == "fine\n", order


def test_its_defaults_are_those_of_the_command_line() -> None:
    given = {one.name: one.default for one in inspect.signature(api.fine_tune).parameters.values()}
    shared = {**_OPTIONS, **READING}
    same = {name for name in given if name in shared}
    assert {"model", "recipe", "minutes", "min_per_class"} <= same
    assert {name: given[name] for name in same} == {name: shared[name][1] for name in same}
    assert given["looks"] is not READING["no_group"][1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (partial(api.fine_tune, "parts", out="out", epohcs=3), "options: epohcs: there is no such key"),
        (partial(api.fine_tune, "parts", out="out", recipe="best"), "recipe: 'best' is not one of"),
        (partial(api.fine_tune, "parts", out="parts/out"), "lies inside parts"),
        (partial(api.fine_tune, "nowhere", out="out"), "nowhere: "),
        (partial(api.export, "nowhere", out="out"), "nowhere: is not there: give the run folder"),
        (partial(api.export, "model.onnx", out="out"), "model.onnx: is a file: .*edgecnn export FILE"),
        (partial(api.export, "parts", out="out", target="toaster"), "'toaster' is not one of"),
        (partial(api.export, "parts", out="parts"), "exists and is not a bundle"),
        (partial(api.verify, "parts", "parts"), "no bundle.json"),
        (partial(api.bench, "parts", budget="fast"), "budget: 'fast' is not a latency"),
    ],
)
def test_a_mistake_is_refused_in_the_words_of_the_command_line(
    call: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(Path("parts"), (6, 6, 6))
    Path("model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=words):
        call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "parts"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples are run, one after the other: first those of the page, which leave what the others need."""
    folder = tmp_path_factory.mktemp("examples")
    write_images(folder / "parts")
    (folder / "part.jpg").write_bytes(encode(picture(0), "JPEG"))
    (folder / "profiles" / "export").mkdir(parents=True)
    (folder / "profiles" / "export" / "desktop-cpu.toml").write_text(TARGET)
    return folder


@pytest.fixture
def small(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as they are, with a training and a target of seconds."""
    real = api.fine_tune
    few = {"minutes": 0, "recipe": "head", "epochs": 12, "size": 32, "device": "cpu"}
    monkeypatch.setattr(api, "fine_tune", lambda data, **given: real(data, **{**given, **few}))
    monkeypatch.setattr(shipped, "_PACKAGED", place / "profiles")
    monkeypatch.chdir(place)


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:.*shows too little:UserWarning")
def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Of docs/python.md, and then, in the folder that they leave, those of the docstrings."""
    names: dict[str, Any] = {}
    for number, code in enumerate(examples("python.md")):
        exec(compile(code, f"python.md, example {number}", "exec"), names)
    out, err = capsys.readouterr()
    assert "nowhere: is not there" in out
    assert "onnx-fp32 True None" in out
    assert err == ""
    for module in (api, predictor):
        found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"edgecnn": edgecnn, "Path": Path})
        runner, asked = doctest.DocTestRunner(), [one for one in found if one.examples]
        assert asked
        for one in asked:
            runner.run(one)
        assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out
