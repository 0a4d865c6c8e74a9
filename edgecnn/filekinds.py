"""What a file is by its own first bytes, whatever its name says: for the message when it is not what was wanted."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import UserError

_HEAD_BYTES = 512


@dataclass(frozen=True)
class Kind:
    """What a file is."""

    name: str
    """torch, safetensors, onnx, …: one word for code."""
    words: str
    """After "is": a Git LFS pointer, a web page, …"""
    cure: str = ""


_EMPTY = Kind("empty", "empty (0 bytes)", "copy or download it again")
_LFS = Kind("lfs", "a Git LFS pointer, not the file itself", "fetch it: git lfs pull")
_HTML = Kind("html", "a web page (HTML), not the file itself", "download the raw file")
_XML = Kind("xml", "an XML document")
_SAFETENSORS = Kind("safetensors", "a safetensors file")
_ONNX = Kind("onnx", "an ONNX model", "give it the ending .onnx, and leave --model out")
_TFLITE = Kind("tflite", "a TFLite model", "give the network as .onnx, or the weights that it was made from")
_KERAS = Kind("keras", "a Keras model", "write an .onnx file of it: model.export(…, format='onnx'), or tf2onnx")
_HDF5 = Kind("hdf5", "an HDF5 file, as Keras writes it", _KERAS.cure)
_TORCH = Kind("torch", "a PyTorch file")
_PICKLE = Kind("pickle", "pickled Python objects")
_NUMPY = Kind("numpy", "NumPy arrays", "save the network's state_dict with torch.save, or write an .onnx file")
_ARCHIVE = Kind("archive", "a packed archive", "unpack it")
_EXCEL = Kind("excel", "a spreadsheet", "save it as CSV UTF-8 or as plain text")
_IMAGE = Kind("image", "an image")
_PDF = Kind("pdf", "a PDF document")
_UTF16 = Kind("utf16", "text in UTF-16, as PowerShell's > and Notepad's “Unicode” write it", "save it as UTF-8")
_UTF32 = Kind("utf32", "text in UTF-32", "save it as UTF-8")

_MARKS: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs", _LFS),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    (b"\x93NUMPY", _NUMPY),
    (b"\x1f\x8b", _ARCHIVE),
    (b"BZh", _ARCHIVE),
    (b"\xfd7zXZ\0", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (b"Rar!\x1a\x07", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", _ARCHIVE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _EXCEL),
    (b"%PDF-", _PDF),
    (b"\xff\xd8\xff", _IMAGE),
    (b"\x89PNG\r\n\x1a\n", _IMAGE),
    (b"\xff\xfe\0\0", _UTF32),
    (b"\0\0\xfe\xff", _UTF32),
    (b"\xff\xfe", _UTF16),
    (b"\xfe\xff", _UTF16),
)
_AFTER_ONNX_VERSION = (b"\x12", b"\x1a", b"\x2a", b"\x32", b"\x3a", b"\x42")
"""The tags of the fields that may follow."""


def kind_of(path: Path) -> Kind | None:
    """What the file is; None where its bytes do not say. UserError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
            return _of_zip(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    return _of_head(head)


def _of_head(head: bytes) -> Kind | None:
    if not head:
        return _EMPTY
    for mark, kind in _MARKS:
        if head.startswith(mark):
            return kind
    if head[4:8] == b"TFL3":
        return _TFLITE
    if len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 32:
        return _SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        # torch's files from before 1.6 begin with this number, pickled.
        return _TORCH if b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." in head[:32] else _PICKLE
    if head[:1] == b"\x08" and b"\x01" <= head[1:2] <= b"\x20" and head[2:3] in _AFTER_ONNX_VERSION:
        return _ONNX
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return _HTML
    if text.startswith(b"<?xml"):
        return _HTML if b"<html" in text else _XML
    return _UTF16 if _every_second_is_zero(head) else None


def _every_second_is_zero(head: bytes) -> bool:
    """UTF-16 without a mark, of a Western text."""
    even, odd = head[::2], head[1::2]
    zeros = sorted((even.count(0) / max(len(even), 1), odd.count(0) / max(len(odd), 1)))
    return len(head) >= 8 and zeros[0] == 0 and zeros[1] > 0.9


def _of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return Kind("torch", "a zip file, as PyTorch writes it, damaged or cut off", "copy or download it again")
    return _of_names(names)


def _of_names(names: Sequence[str]) -> Kind:
    lasts = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in lasts or "constants.pkl" in lasts or "archive_format" in lasts:
        return _TORCH
    if "serialized_exported_program.json" in lasts:
        return _TORCH
    if "model.weights.h5" in lasts:
        return _KERAS
    if "[Content_Types].xml" in lasts:
        return _EXCEL
    if lasts and all(name.endswith(".npy") for name in lasts):
        return _NUMPY
    return _ARCHIVE
