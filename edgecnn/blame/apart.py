"""Somebody's model file, opened and run in a process of its own.

Whatever it does to its engine, to memory or to time there, costs one line here. The process is
`python -m edgecnn.blame.child`; it answers one request after another, and opens one file after another.
"""

from __future__ import annotations

import glob
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame.engines import Refused
from edgecnn.blame.pipeline import Shape
from edgecnn.child import child_environment, death
from edgecnn.errors import UserError
from edgecnn.holding import temporary_folder

LARGEST_INPUT = 3 * 4096 * 4096
"""Numbers that a file may take at once: the largest image that a network of ours takes."""
_STARTS_S = 120.0
"""A large engine from a slow disk."""
_ANSWERS_S = 20.0
"""Opening a file, or one image. Larger files get more: see `_patience_s`."""
_BYTES_A_SECOND = 10_000_000
_SPARE_BYTES = 2**30
_SPARE_A_BYTE = 8
"""Memory of the engine for each byte of the file: its weights, read, rearranged, widened."""
_SPARE_A_PIXEL = 1024


@dataclass(frozen=True)
class Request:
    """What the process is asked for; behind "run" the values follow."""

    do: Literal["start", "open", "run", "precision", "metadata"]
    engine: str = ""
    path: str = ""
    threads: int = 1
    plain: bool = False
    """Without the engine's own optimisations."""
    spare_bytes: int = 0
    """Memory that the engine may take for the file."""
    shape: tuple[int, ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class Reply:
    """What became of it; behind an answer to "run" its float32 numbers follow."""

    shape: Shape = ()
    numbers: int = 0
    words: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    mistake: str | None = None
    """For a UserError."""
    refused: str | None = None
    """For a Refused."""


class Apart:
    """The process, which is started when it is needed, and again after it died. Ended by `with`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._said = Path()
        """What it printed."""
        self._held = ExitStack()
        self._engines: set[str] = set()
        self._late = False

    def open(self, engine: str, path: Path, pixels: int, plain: bool = False) -> OpenedApart:
        """A file, in the place of the one before. `pixels`: of an image that will enter. UserError: it does not open,
        or takes an input that no image is."""
        size = _bytes_of(path)
        spare = _SPARE_BYTES + _SPARE_A_BYTE * size + _SPARE_A_PIXEL * pixels
        if self._process is None or self._process.poll() is not None:
            self._start()
        if engine not in self._engines:
            self.ask(Request("start", engine), path, _STARTS_S)
            self._engines.add(engine)
        patience_s = _ANSWERS_S + size / _BYTES_A_SECOND
        asked = Request("open", engine, str(path), self._threads, plain, spare)
        shape = tuple(self.ask(asked, path, patience_s)[0].shape)
        if math.prod(one for one in shape if one) > LARGEST_INPUT:
            accepted = f"an input of at most {LARGEST_INPUT:,} numbers can be run"
            raise UserError(f"{path}: it takes {_in_words(shape)}: {accepted}")
        return OpenedApart(self, path, shape, patience_s)

    def ask(
        self, request: Request, path: Path, patience_s: float, values: NDArray[np.generic] | None = None
    ) -> tuple[Reply, NDArray[np.float32]]:
        """The reply, and numbers behind it. Raises Refused; UserError also where the process died or is too slow."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise UserError(f"{path}: is not open any more")
        timer = threading.Timer(patience_s, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            send(process.stdin, request, values)
            reply = _reply(process.stdout)
            numbers = values_behind(process.stdout, (reply.numbers,), "float32").astype(np.float32, copy=False)
        except (OSError, EOFError, ValueError):
            raise UserError(f"{path}: {self._why_it_ended(patience_s)}") from None
        finally:
            timer.cancel()
        if reply.mistake is not None:
            raise UserError(reply.mistake)
        if reply.refused is not None:
            raise Refused(reply.refused)
        return reply, numbers

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _start(self) -> None:
        self.close()
        self._engines, self._late = set(), False
        self._said = self._held.enter_context(temporary_folder("foreign")) / "said.txt"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgecnn.blame.child", str(os.getpid())],
                env=child_environment(os.environ, self._threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )

    def _end_late(self) -> None:
        self._late = True
        if self._process is not None:
            self._process.kill()

    def _why_it_ended(self, patience_s: float) -> str:
        if self._process is None:
            return "its process has ended"
        self._process.kill()  # it may live, and have closed its output
        code = self._process.wait()
        if self._late:
            return f"its engine gave no answer within {patience_s:.0f} s: it was ended"
        text = self._said.read_bytes()[-100_000:].decode(errors="replace")
        if "bad_alloc" in text:
            return "its engine needs more memory than a file of this size may"
        return death(code, text, "engine's")


@dataclass(frozen=True)
class OpenedApart:
    """A model file that is open in another process: an `engines.Opened`."""

    apart: Apart
    path: Path
    shape: Shape
    patience_s: float

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """One image (1, …), float32 or uint8, to (classes,). Raises Refused; UserError where the process ended."""
        request = Request("run", shape=values.shape, dtype=values.dtype.str)
        return self.apart.ask(request, self.path, self.patience_s, values)[1]

    def precision(self) -> str | None:
        """What the file says of low precision in it."""
        return self.apart.ask(Request("precision"), self.path, self.patience_s)[0].words

    def metadata(self) -> dict[str, str]:
        """Text by key that the file carries besides the model; none where its format has none."""
        return self.apart.ask(Request("metadata"), self.path, self.patience_s)[0].metadata


def send(stream: IO[bytes], message: Request | Reply, values: NDArray[np.generic] | None = None) -> None:
    """A message in one line of JSON, and the values that it tells the shape of."""
    stream.write(json.dumps(asdict(message)).encode() + b"\n")
    if values is not None:
        stream.write(np.ascontiguousarray(values).tobytes())
    stream.flush()


def values_behind(stream: IO[bytes], shape: Sequence[int], dtype: str) -> NDArray[np.generic]:
    """The values behind a message. EOFError where they are not whole."""
    kind = np.dtype(dtype)
    count = math.prod(shape) * kind.itemsize
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return np.frombuffer(data, kind).reshape(tuple(shape))


def _reply(stream: IO[bytes]) -> Reply:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return Reply(**json.loads(line))


def _bytes_of(path: Path) -> int:
    """Of a file and those beside it that belong to it: .bin of OpenVINO's, .data of ONNX's."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{glob.escape(path.stem)}*") if one.is_file())


def _in_words(shape: Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
