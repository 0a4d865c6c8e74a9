"""What a rehearsed process is told, and what it answers. Read by both sides: the host's Python and the emulated one."""

from __future__ import annotations

from edgecnn.artifact import Precision, Preprocess
from edgecnn.documents import Frozen


class Job(Frozen):
    """One variant to run in this process."""

    model: str
    """Path of the main file."""
    runtime: str
    precision: Precision
    threads: int
    preprocess: Preprocess
    images: tuple[str, ...]
    """Paths of encoded images."""
    out: str
    """Where the answer is written, whole or not at all."""
    log: str | None
    """The emulator's log, to write marks into; None outside the emulator."""


class Answer(Frozen):
    """What the process found."""

    logits: str
    """float32 little-endian (images, classes) in hexadecimal: bits, so that equal means equal and NaN survives."""
    pixels: tuple[str, ...]
    """SHA-256 of each image's prepared pixels."""
    versions: dict[str, str]
    """Of Python, of the libraries that prepare an image, and of the engine."""
    instruction_set: str | None
    """That the engine worked with, as the process saw it."""
    engine_code: tuple[tuple[int, int], ...]
    """Address ranges of the engine's machine code: its libraries and what it generated."""
    peak_rss_mib: float
    """Peak memory of the process; in the emulator, of emulator and program together."""


IMAGE_DONE = "edgecnn: image done"
"""Line on stdout after each image, so that progress is seen and a death has a place."""
PHASES = ("edgecnn: images prepared", "edgecnn: model opened")
"""Lines on stdout before the first image."""
USER_ERROR = 2
"""Exit code where the last line on stderr is a message for the user."""
