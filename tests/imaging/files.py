"""Encoded images as strangers write them: every format with its orientation tag, odd JPEGs, 16 bits of colour."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from edgecnn.imaging import Reduced, as_stored
from tests.conftest import encode

TAG = 0x0112


def stored(upright: np.ndarray, tag: int) -> np.ndarray:
    """The pixels that a file must hold for its tag to turn them into `upright`."""
    return as_stored(Reduced(upright, 1, *upright.shape[:2]), tag).pixels


def exif(tag: int) -> Image.Exif:
    block = Image.Exif()
    block[TAG] = tag
    return block


def jpeg(pixels: np.ndarray, tag: int) -> bytes:
    return encode(pixels, "JPEG", quality=100, subsampling=0, exif=exif(tag))


def jpeg_with_late_exif(pixels: np.ndarray, tag: int) -> bytes:
    """More than 64 KiB of other segments before the Exif block."""
    filler = b"\xff\xe5" + struct.pack(">H", 40_002) + bytes(40_000)
    encoded = jpeg(pixels, tag)
    return encoded[:2] + 2 * filler + encoded[2:]


def mpo(pixels: np.ndarray, tag: int) -> bytes:
    """A phone's: the picture, and a preview behind it."""
    preview = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    return encode(
        pixels, "MPO", save_all=True, append_images=[preview], quality=100, subsampling=0, exif=exif(tag).tobytes()
    )


def png_with_exif_behind(pixels: np.ndarray, tag: int) -> bytes:
    """An eXIf chunk after the pixels, where the PNG specification allows it too."""
    plain = encode(pixels)
    block = exif(tag).tobytes().removeprefix(b"Exif\0\0")
    return plain[:-12] + png_chunk(b"eXIf", block) + plain[-12:]


TAGGED: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "jpeg": jpeg,
    "jpeg, exif beyond 64 KiB": jpeg_with_late_exif,
    "grey jpeg": lambda pixels, tag: jpeg(pixels[:, :, 0], tag),
    "mpo": mpo,
    "png": lambda pixels, tag: encode(pixels, exif=exif(tag)),
    "png, exif behind": png_with_exif_behind,
    "16-bit png": lambda pixels, tag: png16(pixels.astype(np.uint16) << 8, exif(tag)),
    "tiff": lambda pixels, tag: encode(pixels, "TIFF", tiffinfo={TAG: tag}),
    "tiff, compressed": lambda pixels, tag: encode(pixels, "TIFF", tiffinfo={TAG: tag}, compression="tiff_lzw"),
    "grey tiff": lambda pixels, tag: encode(pixels[:, :, 0], "TIFF", tiffinfo={TAG: tag}),
    "webp": lambda pixels, tag: encode(pixels, "WEBP", lossless=True, exif=exif(tag)),
}
"""Formats that can say how they lie: (pixels as stored, tag) to a file. Those named jpeg or mpo lose a little."""

UNTAGGED: dict[str, Callable[[np.ndarray], bytes]] = {
    "bmp": lambda pixels: encode(pixels, "BMP"),
    "ppm": lambda pixels: encode(pixels, "PPM"),
    "pgm": lambda pixels: encode(pixels[:, :, 0], "PPM"),
    "gif": lambda pixels: encode(pixels[:, :, 0], "GIF"),
}
"""Formats that cannot."""


def png16(values: np.ndarray, block: Image.Exif | None = None) -> bytes:
    """A PNG of 16 bits a channel: uint16 (h, w), (h, w, 2), (h, w, 3) or (h, w, 4)."""
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    rows = values.astype(">u2").reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    if block is not None:
        chunks.append(png_chunk(b"eXIf", block.tobytes().removeprefix(b"Exif\0\0")))
    chunks += [png_chunk(b"IDAT", zlib.compress(lines)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff16(values: np.ndarray, order: str = "<", compressed: bool = False) -> bytes:
    """A TIFF of 16 bits a channel, uint16 (h, w, 3), in the byte order `order`."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    if compressed:
        data = zlib.compress(data)
    data += bytes(len(data) % 2)
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, 8 + len(data)),  # where the bits of the channels stand
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    stream = io.BytesIO()
    directory = 8 + len(data) + 2 * channels
    stream.write((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, directory) + data)
    stream.write(struct.pack(f"{order}{channels}H", *[16] * channels))
    stream.write(struct.pack(f"{order}H", len(entries)))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        stream.write(struct.pack(f"{order}HHI", tag, kind, count))
        stream.write(struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value))
    stream.write(bytes(4))
    return stream.getvalue()


def jpeg_of_scans(pixels: np.ndarray, factors: tuple[tuple[int, int], ...]) -> bytes:
    """A JPEG of any subsampling: (horizontal, vertical) factors of Y, Cb and Cr, each component in a scan of its own.

    A scan of one component holds its blocks row by row whatever the factors are, as a grey JPEG's scan does: so it is
    made of grey ones, which share their tables.
    """
    height, width = pixels.shape[:2]
    most = [max(factor[axis] for factor in factors) for axis in (0, 1)]
    planes = Image.fromarray(pixels).convert("YCbCr").split()
    scans = []
    for plane, (across, down) in zip(planes, factors, strict=True):
        size = (-(-width * across // most[0]), -(-height * down // most[1]))
        scans.append(encode(np.asarray(plane.resize(size, Image.Resampling.BOX)), "JPEG", quality=95))
    frame, scan = scans[0].index(b"\xff\xc0"), b"\xff\xda"
    components = b"".join(bytes((number, a << 4 | d, 0)) for number, (a, d) in enumerate(factors, 1))
    start = struct.pack(">HHBHHB", 0xFFC0, 17, 8, height, width, 3) + components
    tables = scans[0][frame + 13 : scans[0].index(scan)]
    body = b"".join(
        scan + bytes((0, 8, 1, number, 0, 0, 63, 0)) + one[one.index(scan) + 10 : -2]
        for number, one in enumerate(scans, 1)
    )
    return scans[0][:frame] + start + tables + body + b"\xff\xd9"
