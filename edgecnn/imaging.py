"""The one preprocessing: from encoded bytes (or a raw camera frame) to the uint8 pixels that a network takes.

Training, calibration, parity, bench and deployment all call this. Two steps, both in integer arithmetic, so that every
processor gives the same pixels:

1. *reduce* by a power of two while the image stays at least as large as the network's input: for a JPEG inside the
   decoder (libjpeg-turbo's scaled inverse DCT), for everything else by box averaging;
2. *resize* to the input size: Pillow's antialiased bilinear filter in fixed point.

Mean and scale are not here: they are inside the exported graph.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgecnn.artifact import Preprocess
from edgecnn.errors import BadImage, UserError, first_line

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w, 3), RGB; where a step says so also (h, w), grey."""
Images: TypeAlias = NDArray[np.uint8]
"""uint8 (n, h, w, 3), RGB, at model size."""

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header, before a byte of them is decoded."""
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
_FACTORS = (8, 4, 2)
_ORIENTATION_TAG = 0x0112
_LEAST_16_BIT_PEAK = 4096


class Preparer:
    """Prepares images one after the other with reused buffers. Not for use by two threads at once."""

    def __init__(self, spec: Preprocess) -> None:
        self.spec = spec
        self._buffer = np.empty(0, np.uint8)

    def decode(self, encoded: bytes) -> Pixels:
        """Encoded file to upright pixels, already reduced: RGB, or (h, w) of a grey JPEG. Valid until the next call.

        Raises BadImage.
        """
        if encoded[:3] == b"\xff\xd8\xff":
            return self._decode_jpeg(encoded)
        return self.reduce(decode_whole(encoded))

    def reduce(self, frame: Pixels) -> Pixels:
        """A raw frame, uint8 (h, w, 3) RGB or (h, w) grey, to reduced pixels of the same kind by box averaging."""
        _check_frame(frame)
        factor = reduction(frame.shape[0], frame.shape[1], self.spec)
        if factor == 1:
            return frame
        return np.asarray(Image.fromarray(frame).reduce(factor))

    def fit(self, pixels: Pixels) -> Pixels:
        """Reduced pixels, RGB or grey, to uint8 (height, width, 3): the pinned resize."""
        spec = self.spec
        height, width = pixels.shape[:2]
        box = _crop_box(height, width, spec)
        if (height, width) != (spec.height, spec.width) or box != (0, 0, width, height):
            image = Image.fromarray(pixels)
            pixels = np.asarray(image.resize((spec.width, spec.height), Image.Resampling.BILINEAR, box=box))
        # Grey is resized once, not three times: the channels would be equal to the last bit.
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)

    def prepare(self, encoded: bytes) -> Pixels:
        """Encoded file to uint8 (height, width, 3). May share memory with the next call's result. Raises BadImage."""
        return self.fit(self.decode(encoded))

    def prepare_frame(self, frame: Pixels) -> Pixels:
        """Raw frame, uint8 (h, w, 3) RGB or (h, w) grey, to uint8 (height, width, 3)."""
        return self.fit(self.reduce(frame))

    def _decode_jpeg(self, encoded: bytes) -> Pixels:
        try:
            height, width, colour, _ = simplejpeg.decode_jpeg_header(encoded)
        except ValueError as error:
            raise BadImage(f"not a readable JPEG ({first_line(error)})") from None
        _check_size(height, width)
        if colour in ("CMYK", "YCCK"):
            return self.reduce(decode_whole(encoded))
        orientation = _orientation(encoded)
        # Orientations 5 to 8 lie on their side: the reduction is decided for the upright image.
        upright = (width, height) if orientation >= 5 else (height, width)
        factor = reduction(*upright, self.spec)
        reduced_height, reduced_width = -(-height // factor), -(-width // factor)
        space, channels = ("GRAY", 1) if colour == "Gray" else ("RGB", 3)
        size = reduced_height * reduced_width * channels
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        try:
            # strict: a damaged file is refused instead of shown with grey where its data ends.
            pixels: Pixels = simplejpeg.decode_jpeg(
                encoded, space, min_height=reduced_height, min_width=reduced_width, buffer=self._buffer, strict=True
            )
        except ValueError as error:
            raise BadImage(f"damaged JPEG ({first_line(error)})") from None
        return _upright(pixels if channels == 3 else pixels[:, :, 0], orientation)


def prepare(encoded: bytes, spec: Preprocess) -> Pixels:
    """Encoded file to uint8 (height, width, 3) RGB of its own memory. Raises BadImage with the reason."""
    return np.array(Preparer(spec).prepare(encoded))


def prepare_frame(frame: Pixels, spec: Preprocess) -> Pixels:
    """Raw camera frame, uint8 (h, w, 3) RGB or (h, w) grey, to uint8 (height, width, 3) RGB.

    Equal to `prepare` of a losslessly encoded file. A JPEG of the same scene differs by its compression and by the
    decoder's own reduction: `edgecnn export` measures by how much, and exits 1 where decisions suffer.
    """
    return np.array(Preparer(spec).prepare_frame(frame))


def decode_whole(encoded: bytes) -> Pixels:
    """Encoded file to upright RGB pixels at full size: what a camera would have handed over. Raises BadImage."""
    if not encoded:
        raise BadImage("empty file (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded))
            _check_size(image.height, image.width)
            frames = getattr(image, "n_frames", 1)
            # A phone's MPO is a JPEG with previews behind it.
            if frames > 1 and image.format != "MPO":
                raise BadImage(f"animated or multi-page image ({frames} frames): save the frame you mean")
            orientation = _orientation_of(image)
            image.load()
            return _upright(_to_rgb(image), orientation)
    except UnidentifiedImageError:
        raise BadImage("not an image in a format that is read here (JPEG, PNG, BMP, TIFF, WebP, …)") from None
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise BadImage(f"damaged or unreadable ({first_line(error)})") from None


def reduction(height: int, width: int, spec: Preprocess) -> int:
    """The power of two (at most 8) by which an upright image is reduced before the resize."""
    if spec.fit == "center-crop":
        height = width = int(min(height, width) * spec.crop)
    for factor in _FACTORS:
        if height >= factor * spec.height and width >= factor * spec.width:
            return factor
    return 1


def _crop_box(height: int, width: int, spec: Preprocess) -> tuple[float, float, float, float]:
    if spec.fit == "stretch":
        return (0, 0, width, height)
    side = min(height, width) * spec.crop
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImage(f"{width}×{height} pixels: more than {MAX_PIXELS:,} are refused")


def _check_frame(frame: Pixels) -> None:
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise UserError(
            f"frame: {frame.dtype} {frame.shape} is not uint8 (h, w, 3) RGB or (h, w) grey: convert it first"
        )


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips at 255. Mode I is what it opens some 16-bit files as.
        values = np.asarray(image).astype(np.int64)
        if 0 < values.max() < _LEAST_16_BIT_PEAK or values.max() > 65535:
            raise BadImage(
                f"16-bit image with values up to {values.max()}: a camera's 10 or 12 bits? scale them to the full 16"
            )
        grey = np.clip(values, 0, 65535) >> 8
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise BadImage("floating-point pixels have no defined range: save it with 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def _orientation(encoded: bytes) -> int:
    if b"Exif\0\0" not in encoded[:65536]:
        return 1
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return _orientation_of(image)
    except Exception:  # a damaged Exif block says nothing; the decoder judges the rest
        return 1


def _orientation_of(image: Image.Image) -> int:
    """Of the Exif (or TIFF) tag alone, 1 to 8, so that every path turns an image alike: Pillow would obey XMP too."""
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    tags: Any = getattr(image, "tag_v2", exif)
    value = tags.get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return np.ascontiguousarray(pixels)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
