"""From an encoded file or a raw frame to the pixels that a network takes: decode and reduce, then fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.imaging import jpeg, kernels, whole
from edgecnn.imaging.kernels import PARTS, Span, Workspace
from edgecnn.imaging.orientation import MIRRORED, ON_ITS_SIDE, UPSIDE_DOWN, orientation, upright
from edgecnn.imaging.pixels import DeepPixels, Pixels
from edgecnn.imaging.whole import bits_of

_FACTORS = (8, 4, 2)


@dataclass(frozen=True)
class Reduced:
    """Upright pixels, reduced by a power of two. Where its size is no multiple, a block at one edge is partial."""

    pixels: Pixels
    """(h, w, 3) RGB or (h, w) grey."""
    factor: int
    height: int
    """Of the unreduced picture, upright."""
    width: int
    top: int = 0
    """Pixels that the uppermost row of blocks reaches beyond the picture: the blocks of a JPEG lie as it was stored."""
    left: int = 0


class Preparer:
    """Prepares images one after the other with reused buffers. Not for use by two threads at once."""

    def __init__(self, spec: Preprocess) -> None:
        self.spec = spec
        self._work = Workspace()

    def decode(self, encoded: bytes) -> Reduced:
        """Encoded file to upright, reduced pixels: RGB, or grey of a grey file. Valid until the next call.

        Raises BadImage.
        """
        if encoded[:3] == jpeg.START:
            try:
                return _decode_jpeg(encoded, lambda height, width: reduction(height, width, self.spec), self._work)
            except jpeg.NotTaken:
                pass
        return self.reduce(whole.to_8_bits(whole.load(encoded), self.spec.bits))

    def reduce(self, frame: Pixels) -> Reduced:
        """A raw frame, uint8 (h, w, 3) RGB or (h, w) grey, to reduced pixels of the same kind by box averaging."""
        _check_frame(frame)
        height, width = frame.shape[:2]
        factor = reduction(height, width, self.spec)
        pixels = frame if factor == 1 else kernels.reduce(frame, factor, self._work)
        return Reduced(pixels, factor, height, width)

    def fit(self, reduced: Reduced) -> Pixels:
        """Reduced pixels to uint8 (height, width, 3): the pinned resize. Valid until the next call."""
        spec, pixels = self.spec, reduced.pixels
        down, across = spans(reduced, spec)
        height, width = pixels.shape[:2]
        if (height, width) != (spec.height, spec.width) or (down.extent, across.extent) != (
            height * reduced.factor * PARTS,
            width * reduced.factor * PARTS,
        ):
            pixels = kernels.fit(
                pixels if pixels.ndim == 3 else pixels[:, :, None],
                kernels.taps(height, reduced.factor, down, spec.height),
                kernels.taps(width, reduced.factor, across, spec.width),
                self._work,
            )
        # Grey is resized once, not three times: the channels would be equal to the last bit.
        if pixels.ndim == 2 or pixels.shape[2] == 1:
            pixels = np.repeat(pixels.reshape(spec.height, spec.width, 1), 3, axis=2)
        return np.ascontiguousarray(pixels)

    def prepare(self, encoded: bytes) -> Pixels:
        """Encoded file to uint8 (height, width, 3). May share memory with the next call's result. Raises BadImage."""
        return self.fit(self.decode(encoded))

    def probe(self, encoded: bytes) -> tuple[Pixels, int | None]:
        """A file of which nobody has decided yet how many bits count: prepared by its own range, and the largest value
        of a 16-bit file (None: it has 8 bits). Raises BadImage where it cannot be read."""
        if encoded[:3] == jpeg.START:
            return self.prepare(encoded), None
        values = whole.load(encoded)
        peak = int(values.max(initial=0)) if values.dtype == np.uint16 else None
        return self.prepare_frame(whole.to_8_bits(values, None if peak is None else bits_of(peak))), peak

    def prepare_frame(self, frame: Pixels) -> Pixels:
        """Raw frame, uint8 (h, w, 3) RGB or (h, w) grey, to uint8 (height, width, 3). Shares memory likewise."""
        return self.fit(self.reduce(frame))


def prepare(encoded: bytes, spec: Preprocess) -> Pixels:
    """Encoded file to uint8 (height, width, 3) RGB of its own memory. Raises BadImage with the reason."""
    return np.array(Preparer(spec).prepare(encoded))


def prepare_frame(frame: Pixels, spec: Preprocess) -> Pixels:
    """Raw camera frame, uint8 (h, w, 3) RGB or (h, w) grey, to uint8 (height, width, 3) RGB.

    Equal to `prepare` of a losslessly encoded file. A JPEG of the same scene differs by its compression and by the
    decoder's own reduction: `edgecnn export` measures by how much, and exits 1 where decisions suffer.
    """
    return np.array(Preparer(spec).prepare_frame(frame))


def decode_whole(encoded: bytes, bits: int | None = None) -> Pixels:
    """Encoded file to upright RGB pixels at full size: what a camera would have handed over. Raises BadImage.

    `bits` of a 16-bit file: see `Preprocess.bits`.
    """
    pixels = whole.to_8_bits(_whole(encoded), bits)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2))


def reduction(height: int, width: int, spec: Preprocess) -> int:
    """The power of two (at most 8) by which an upright image is reduced before the resize."""
    if spec.fit == "center-crop":
        height = width = int(min(height, width) * spec.crop)
    for factor in _FACTORS:
        if height >= factor * spec.height and width >= factor * spec.width:
            return factor
    return 1


def as_stored(reduced: Reduced, tag: int) -> Reduced:
    """Undo the turn of an orientation: the pixels as they lie in the file."""
    rows, columns = (side * reduced.factor for side in reduced.pixels.shape[:2])
    top = rows - reduced.height - reduced.top if tag in UPSIDE_DOWN else reduced.top
    left = columns - reduced.width - reduced.left if tag in MIRRORED else reduced.left
    pixels, height, width = reduced.pixels, reduced.height, reduced.width
    if tag in UPSIDE_DOWN:
        pixels = pixels[::-1]
    if tag in MIRRORED:
        pixels = pixels[:, ::-1]
    if tag in ON_ITS_SIDE:
        pixels, (top, left), (height, width) = pixels.swapaxes(0, 1), (left, top), (width, height)
    return Reduced(np.ascontiguousarray(pixels), reduced.factor, height, width, top, left)


def spans(reduced: Reduced, spec: Preprocess) -> tuple[Span, Span]:
    """What of the picture fills the input, down and across."""
    sides = (reduced.height * PARTS, reduced.width * PARTS)
    offsets = (reduced.top * PARTS, reduced.left * PARTS)
    if spec.fit == "stretch":
        down, across = (Span(offset, side) for offset, side in zip(offsets, sides, strict=True))
        return down, across
    square = max(1, round(min(sides) * spec.crop))
    down, across = (Span(offset + (side - square) // 2, square) for offset, side in zip(offsets, sides, strict=True))
    return down, across


def _whole(encoded: bytes) -> Pixels | DeepPixels:
    if encoded[:3] == jpeg.START:
        try:
            return _decode_jpeg(encoded, lambda height, width: 1, Workspace()).pixels
        except jpeg.NotTaken:
            pass
    return whole.load(encoded)


def _decode_jpeg(encoded: bytes, factor_of: Callable[[int, int], int], work: Workspace) -> Reduced:
    """Raises BadImage, NotTaken."""
    header = jpeg.read_header(encoded)
    tag = orientation(encoded) if header.exif else 1
    # The reduction is decided for the upright image.
    height, width = (header.width, header.height) if tag in ON_ITS_SIDE else (header.height, header.width)
    factor = factor_of(height, width)
    buffer = work.array("decoded", (-(-height // factor) * -(-width // factor) * 3,))
    pixels = upright(jpeg.decode(encoded, header, factor, buffer), tag)
    # Partial blocks are the last ones as the file lies, so the first ones where that side is turned or mirrored.
    top = -height % factor if tag in UPSIDE_DOWN else 0
    left = -width % factor if tag in MIRRORED else 0
    return Reduced(pixels, factor, height, width, top, left)


def _check_frame(frame: Pixels) -> None:
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise UserError(
            f"frame: {frame.dtype} {frame.shape} is not uint8 (h, w, 3) RGB or (h, w) grey: convert it first"
        )
    if 0 in frame.shape:
        raise UserError(f"frame: {frame.shape} holds no pixels: give it what the camera took")
