"""Features of every image of a collection, in batches; with a cache, each image's is computed once."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import sha256_of
from edgecnn.embed.backbone import Backbone
from edgecnn.embed.pictures import Picture
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Images, Preparer

Features: TypeAlias = NDArray[np.float32]
"""float32 (n, d)."""
BATCH = 32


class Progress(Protocol):
    """What a long run tells its caller; `edgecnn.train.progress.Progress` is one."""

    def start(self, total: int, text: str) -> None:
        """A new part of `total` steps begins."""

    def advance(self, steps: int = 1, status: str = "") -> None:
        """So many steps of it are done."""

    def text(self, text: str) -> None:
        """A line worth reading."""


def compute_features(
    pictures: Sequence[Picture], backbone: Backbone, progress: Progress, cache: Path | None = None
) -> Features:
    """float32 (n, d), in the order of `pictures`.

    `cache`: a folder with one file an image, named by the image's bytes, the preprocessing and the network; so one
    changed image computes that one alone, and a killed run goes on. The last bits depend on the number of threads and
    on the other images of the batch. Raises UserError: an image that changed or cannot be read, a cache that cannot be
    written.
    """
    rows: dict[int, Features] = {}
    if cache is not None:
        _make(cache)
        rows = _cached(pictures, backbone, cache)
    missing = [position for position in range(len(pictures)) if position not in rows]
    progress.start(len(missing), f"computing features ({len(rows)} of {len(pictures)} are in the cache)")
    preparer = Preparer(backbone.preprocess)
    for start in range(0, len(missing), BATCH):
        positions = missing[start : start + BATCH]
        pixels: Images = np.stack([np.array(_prepare(pictures[position], preparer)) for position in positions])
        for position, row in zip(positions, backbone.features(pixels), strict=True):
            rows[position] = row
            if cache is not None:
                _store(cache / f"{_key(pictures[position], backbone)}.npy", row)
        progress.advance(len(positions))
    return np.stack([rows[position] for position in range(len(pictures))]).astype(np.float32, copy=False)


def _key(picture: Picture, backbone: Backbone) -> str:
    return sha256_of(f"{picture.sha256} {backbone.preprocess.model_dump_json()} {backbone.fingerprint}".encode())


def _make(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{cache}: cannot be made ({error.strerror}): name another folder for --cache") from None


def _cached(pictures: Sequence[Picture], backbone: Backbone, cache: Path) -> dict[int, Features]:
    """Position to its stored features; a file that is no whole array counts as not there."""
    found: dict[int, Features] = {}
    for position, picture in enumerate(pictures):
        try:
            row = np.load(cache / f"{_key(picture, backbone)}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if row.ndim == 1 and row.dtype == np.float32:
            found[position] = row
    return found


def _store(path: Path, row: Features) -> None:
    """Complete or not there. Not flushed to the disk: what a power cut leaves is computed anew."""
    stream = io.BytesIO()
    np.save(stream, row, allow_pickle=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(stream.getvalue())
    temporary.replace(path)


def _prepare(picture: Picture, preparer: Preparer) -> Images:
    try:
        encoded = picture.path.read_bytes()
    except OSError as error:
        raise UserError(f"{picture.path}: cannot be read ({error.strerror}): give the same folder") from None
    if sha256_of(encoded) != picture.sha256:
        raise UserError(f"{picture.path}: its bytes changed while the folder was read: run again")
    try:
        return preparer.prepare(encoded)
    except BadImage as error:
        raise UserError(f"{picture.path}: {error}: mend or remove it") from None
