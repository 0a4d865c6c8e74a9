"""tflite-runtime 2.14: LiteRT's predecessor, for devices that still have it. It needs an environment of its own."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np

from edgecnn import __version__
from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.modelfiles.interpreter import Interpreter
from edgecnn.runtimes import Runtime
from edgecnn.runtimes.litert import InterpreterSession

_MODULE = "tflite_runtime"
INSTALL = (
    f"python3.11 -m venv tflite && tflite/bin/pip install --no-deps edgecnn-{__version__}-py3-none-any.whl && "
    "tflite/bin/pip install 'numpy<2' tflite-runtime==2.14.0 Pillow simplejpeg pydantic typer rich"
)


def missing() -> UserError:
    """Why it cannot be installed beside the rest, with the commands that give it an environment."""
    return UserError(
        "tflite-runtime is not installed, and its last release (2.14) needs numpy < 2, which edgecnn's other engines "
        f"do not take: give it an environment of its own ({INSTALL}), or run the same file in litert, its successor"
    )


def _interpreter(path: Path, threads: int) -> Interpreter:
    module = importlib.import_module(f"{_MODULE}.interpreter")
    opened: Interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
    return opened


def _open(path: Path, precision: Precision, threads: int) -> InterpreterSession:
    if importlib.util.find_spec(_MODULE) is None:
        raise missing()
    if int(np.__version__.split(".")[0]) >= 2:
        raise UserError(
            f"tflite-runtime was built for numpy 1 and fails with the numpy {np.__version__} of this environment: "
            f"give it one of its own ({INSTALL}), or run the same file in litert, its successor"
        )
    try:
        return InterpreterSession("tflite-runtime", _interpreter, path, threads)
    except ImportError as error:
        raise UserError(f"tflite-runtime cannot be imported: {first_line(error)}") from None


RUNTIME = Runtime(runs=("litert",), libraries=("tflite-runtime",), extra=None, open=_open, missing=missing)
