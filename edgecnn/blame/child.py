"""The process that opens and runs somebody's model file: `python -m edgecnn.blame.child PARENT`.

`edgecnn.blame.apart` starts it. Requests come on stdin, replies go where stdout was; what engines print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame import engines
from edgecnn.blame.apart import Reply, Request, send, values_behind
from edgecnn.blame.engines import Engine, Opened, Refused
from edgecnn.ending import end_with
from edgecnn.errors import UserError, first_line
from edgecnn.installed import module_of
from edgecnn.modelfiles.metadata import onnx_metadata, tflite_metadata

_MOST_NUMBERS = 1_000_000
"""Of an answer: more classes than anybody has."""
_METADATA = {".onnx": onnx_metadata, ".tflite": tflite_metadata}


class _Server:
    """What is open."""

    def __init__(self) -> None:
        self._opened: Opened | None = None
        self.path = Path()
        self._own_bytes: dict[str, int] = {}
        """Memory with the engine loaded and no file open."""

    def answer(self, request: Request, values: NDArray[np.generic]) -> tuple[Reply, NDArray[np.float32] | None]:
        """Raises Refused, UserError, and whatever a file leads its engine to."""
        if request.do == "start":
            _limit_memory(None)
            importlib.import_module(module_of(_engine(request).library))
            self._own_bytes[request.engine] = _data_bytes()
            return Reply(), None
        if request.do == "open":
            return Reply(shape=self._open(request).shape), None
        if self._opened is None:
            raise UserError(f"{self.path}: is not open")
        if request.do == "run":
            row = self._opened.run(values)
            if row.size > _MOST_NUMBERS:
                raise Refused(f"its output has {row.size:,} numbers, not one for each class")
            return Reply(numbers=row.size), row
        if request.do == "precision":
            return Reply(words=self._opened.precision()), None
        read = _METADATA.get(self.path.suffix.lower())
        return Reply(metadata=read(self.path) if read else {}), None

    def _open(self, request: Request) -> Opened:
        self._opened, self.path = None, Path(request.path)
        engine = _engine(request)
        _limit_memory(max(self._own_bytes.values()) + request.spare_bytes)
        opener = engine.plain if request.plain else engine.open
        if opener is None:
            raise UserError(f"{request.path}: {request.engine} has no other way to compute it")
        self._opened = opener(self.path, request.threads)
        return self._opened


def main(arguments: list[str]) -> int:
    """Answer until nobody asks any more."""
    end_with(int(arguments[0]))
    asked, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = _Server()
    while line := asked.readline():
        request = Request(**json.loads(line))
        values = values_behind(asked, request.shape, request.dtype) if request.do == "run" else np.empty(0)
        _reply(replies, server, request, values)
    return 0


def _reply(replies: IO[bytes], server: _Server, request: Request, values: NDArray[np.generic]) -> None:
    numbers = None
    try:
        reply, numbers = server.answer(request, values)
    except UserError as error:
        reply = Reply(mistake=str(error))
    except Refused as error:
        reply = Reply(refused=str(error))
    except MemoryError:
        reply = Reply(mistake=f"{server.path}: its engine needs more memory than a file of its size may")
    except Exception as error:  # readers and engines trust a file
        why = f"{type(error).__name__}: {first_line(error)}"
        reply = Reply(refused=why) if request.do == "run" else Reply(mistake=f"{server.path}: damaged ({why})")
    send(replies, reply, numbers)


def _engine(request: Request) -> Engine:
    engine = engines.get(request.engine)
    if engine is None:
        raise UserError(f"{request.engine}: no engine of that name")
    return engine


def _data_bytes() -> int:
    """Memory of this process that holds data, whether it is touched or not; 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def _limit_memory(most: int | None) -> None:
    """By Linux: elsewhere a file may take what there is. None: no limit of ours."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = hard if most is None or 0 <= hard < most else most
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
