"""ncnn's public model files: reads and writes .param (the graph, text) and .bin (its weights), strictly.

The format is what ncnn's own loader accepts (`Net::load_param`, `ParamDict::load_param`, `ModelBin::load` and each
layer's `load_model`). This reader accepts less: a file that it takes is taken by ncnn, and no byte of it is left over.
Layer names need not be unique (pnnx repeats some); blob names are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UserError, must_be_file

MAGIC = 7767517
INT8_TAG = 0x000D4B38
FP16_TAG = 0x01306B47
FP32_TAG = 0
_RAW_TAG = 0x0002C056
_ARRAY = -23300
_MOST_IDS = 32
_MOST_LAYERS = 100_000
_LONGEST_NAME = 254

Value: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...]
"""Of a layer's parameter. ncnn tells integers from floats by how they are written, and so do we."""
Number: TypeAlias = int | float


@dataclass(frozen=True)
class Layer:
    """A line of a .param file."""

    kind: str
    """ncnn's name of the operation, such as ConvolutionDepthWise."""
    name: str
    bottoms: tuple[str, ...]
    """Blobs that it reads."""
    tops: tuple[str, ...]
    """Blobs that it writes; each is read by one layer at most."""
    params: Mapping[int, Value] = field(default_factory=dict)

    def integer(self, key: int, default: int = 0) -> int:
        """An integer parameter, or what ncnn takes where it is absent."""
        value = self.params.get(key, default)
        if not isinstance(value, int):
            raise UserError(f"layer {self.name}: parameter {key} is {value!r} where an integer is expected")
        return value


@dataclass(frozen=True)
class Block:
    """A run of values in a .bin file."""

    values: NDArray[np.generic]
    """float32, float16 or int8, one-dimensional."""
    tag: int | None
    """The four bytes before it, which say what it holds; None where the format has none (biases and scales)."""


@dataclass(frozen=True)
class Network:
    """A .param file and its .bin file."""

    layers: tuple[Layer, ...]
    weights: tuple[tuple[Block, ...], ...]
    """One entry for each layer, in the layer's own order: weights, bias, scales."""


def weights_beside(param: Path) -> Path:
    """The .bin file that belongs to a .param file."""
    return param.with_suffix(".bin")


def load(param: Path) -> Network:
    """Read a .param file and the .bin file beside it. UserError, one line, where either is damaged."""
    weights = weights_beside(param)
    must_be_file(param, "an ncnn .param file")
    must_be_file(weights, "the ncnn .bin file that belongs to the .param file")
    try:
        text = param.read_bytes().decode("ascii")
    except UnicodeDecodeError:
        raise UserError(f"{param.name}: not the text of an ncnn .param file") from None
    layers = read_param(text, param.name)
    return Network(layers, read_bin(layers, weights.read_bytes(), weights.name))


def save(network: Network, param: Path) -> None:
    """Write a .param file and the .bin file beside it."""
    param.write_text(write_param(network.layers), encoding="ascii", newline="\n")
    weights_beside(param).write_bytes(write_bin(network.weights))


def read_param(text: str, where: str = ".param") -> tuple[Layer, ...]:
    """The layers of a .param file. `where` is what errors call it."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or lines[0].strip() != str(MAGIC):
        raise UserError(f"{where}: not an ncnn .param file (its first line is not {MAGIC})")
    counts = lines[1].split() if len(lines) > 1 else []
    if len(counts) != 2 or not all(re.fullmatch(r"[1-9]\d{0,5}", count) for count in counts):
        raise UserError(f"{where}: line 2: the numbers of layers and blobs are expected")
    layer_count, blob_count = map(int, counts)
    if layer_count != len(lines) - 2 or layer_count > _MOST_LAYERS:
        raise UserError(f"{where}: {layer_count} layers are announced and {len(lines) - 2} are there")
    layers = tuple(_read_layer(line, f"{where}: line {number}") for number, line in enumerate(lines[2:], 3))
    _check_blobs(layers, blob_count, where)
    return layers


def write_param(layers: Sequence[Layer]) -> str:
    """The text of a .param file."""
    blobs = sum(len(layer.tops) for layer in layers)
    lines = [str(MAGIC), f"{len(layers)} {blobs}"]
    for layer in layers:
        edges = " ".join([*layer.bottoms, *layer.tops])
        params = " ".join(_write_value(key, value) for key, value in layer.params.items())
        lines.append(
            f"{layer.kind:<24} {layer.name:<24} {len(layer.bottoms)} {len(layer.tops)} {edges} {params}".rstrip()
        )
    return "\n".join(lines) + "\n"


def read_bin(layers: Sequence[Layer], data: bytes, where: str = ".bin") -> tuple[tuple[Block, ...], ...]:
    """The weights of these layers. UserError where the data ends early or is not used up."""
    weights: list[tuple[Block, ...]] = []
    offset = 0
    for layer in layers:
        blocks: list[Block] = []
        for count, tagged in expected_blocks(layer):
            block, offset = _read_block(data, offset, count, tagged, f"{where}: layer {layer.name}")
            blocks.append(block)
        weights.append(tuple(blocks))
    if offset != len(data):
        raise UserError(f"{where}: {len(data) - offset} bytes are left after the weights of the last layer")
    return tuple(weights)


def write_bin(weights: Sequence[Sequence[Block]]) -> bytes:
    """The bytes of a .bin file."""
    parts: list[bytes] = []
    for block in (block for blocks in weights for block in blocks):
        if block.tag is not None:
            parts.append(block.tag.to_bytes(4, "little"))
        data = np.ascontiguousarray(block.values).astype(block.values.dtype.newbyteorder("<"), copy=False).tobytes()
        parts.append(data + b"\0" * (-len(data) % 4))
    return b"".join(parts)


def expected_blocks(layer: Layer) -> list[tuple[int, bool]]:
    """(number of values, whether a tag stands before them) of what a layer has in the .bin file, in order."""
    if layer.kind in _UNKNOWN_WEIGHTS:
        raise UserError(f"layer {layer.name}: {layer.kind} has weights that this reader does not know")
    blocks = _BLOCKS.get(layer.kind)
    wanted = blocks(layer) if blocks else []
    if any(count < 1 for count, _ in wanted):
        raise UserError(f"layer {layer.name}: its parameters give a negative or empty number of weights")
    return wanted


def int8_scale_term(layer: Layer) -> int:
    """0 where a layer's weights are float; 1 or 2 where they are int8, plus 100 where its output is int8 too."""
    return layer.integer(8) if layer.kind in QUANTISABLE else 0


QUANTISABLE = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
"""Kinds of layers that have int8 weights in this format."""


def _read_layer(line: str, where: str) -> Layer:
    words = line.split()
    if len(words) < 4 or not all(re.fullmatch(r"\d{1,5}", word) for word in words[2:4]):
        raise UserError(f"{where}: a layer's kind, name, and numbers of inputs and outputs are expected")
    bottoms, tops = int(words[2]), int(words[3])
    edges = words[4 : 4 + bottoms + tops]
    if len(edges) != bottoms + tops or any("=" in edge for edge in edges):
        raise UserError(f"{where}: {bottoms} inputs and {tops} outputs are announced and {len(edges)} are there")
    if any(len(word) > _LONGEST_NAME for word in (*words[:2], *edges)) or not line.isprintable():
        raise UserError(f"{where}: a name is longer than {_LONGEST_NAME} characters, or not printable")
    # The text after the edges, not its words: a quoted string may hold blanks.
    rest = re.split(r"\s+", line.strip(), maxsplit=4 + len(edges))[4 + len(edges) :]
    params: dict[int, Value] = {}
    for word in re.findall(r'(?:[^\s"]|"[^"]*"?)+', rest[0]) if rest else []:
        key, value = _read_value(word, where)
        if key in params:
            raise UserError(f"{where}: parameter {key} stands there twice")
        params[key] = value
    return Layer(words[0], words[1], tuple(edges[:bottoms]), tuple(edges[bottoms:]), params)


def _read_value(word: str, where: str) -> tuple[int, Value]:
    """`key=value`; an array is `key=a,b,c`, or with its length first where the key is −23300 − key."""
    match = re.fullmatch(r"(-?\d{1,5})=(.+)", word)
    if not match:
        raise UserError(f"{where}: {_short(word)} is not key=value")
    key, text = int(match[1]), match[2]
    counted = key <= _ARRAY
    key = _ARRAY - key if counted else key
    if not 0 <= key < _MOST_IDS:
        raise UserError(f"{where}: {_short(word)}: keys are 0 to {_MOST_IDS - 1}")
    if not counted and (text[0] == '"' or text[0].isalpha()):
        quoted = re.fullmatch(r'"([^"]*)"', text) or re.fullmatch(r'([^"]+)', text)
        if not quoted or len(quoted[1]) > _LONGEST_NAME:
            raise UserError(f"{where}: {_short(word)} is not a string")
        return key, quoted[1]
    items = text.split(",")
    if counted:
        length = _number(items.pop(0), where)
        if length != len(items):
            raise UserError(f"{where}: {_short(word)}: an array of {length} has {len(items)} values")
    elif len(items) == 1:
        return key, _number(text, where)
    elif items[-1] == "":  # how ncnn writes an array of one
        items.pop()
    values = tuple(_number(item, where) for item in items)
    if len({type(value) for value in values}) > 1:
        raise UserError(f"{where}: {_short(word)}: integers and floats in one array")
    return key, values


def _number(text: str, where: str) -> Number:
    if len(text) < 128:
        if re.fullmatch(r"[+-]?\d+", text) and abs(int(text)) < 2**31:
            return int(text)
        if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", text):
            value = float(text)
            if abs(value) <= float(np.finfo(np.float32).max) and not text.lstrip("+-").isdigit():
                return value
    raise UserError(f"{where}: {_short(text)} is not a number of 32 bits")


def _write_value(key: int, value: Value) -> str:
    if isinstance(value, str):
        return f'{key}="{value}"'
    if isinstance(value, tuple):
        return f"{_ARRAY - key}=" + ",".join([str(len(value)), *map(_write_number, value)])
    return f"{key}={_write_number(value)}"


def _write_number(value: Number) -> str:
    """repr of a float has a point or an exponent, by which ncnn knows it, and reads back as the same number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"ncnn cannot read {value}")
    return repr(value)


def _check_blobs(layers: Sequence[Layer], blob_count: int, where: str) -> None:
    """Every blob is written once, before it is read, and read once at most."""
    written: set[str] = set()
    unread: set[str] = set()
    for number, layer in enumerate(layers, 3):
        for blob in layer.bottoms:
            if blob not in unread:
                reason = "has been read before" if blob in written else "no layer before it writes"
                raise UserError(f"{where}: line {number}: layer {layer.name} reads blob {blob}, which {reason}")
            unread.remove(blob)
        for blob in layer.tops:
            if blob in written:
                raise UserError(f"{where}: line {number}: blob {blob} is written twice")
            written.add(blob)
            unread.add(blob)
    if len(written) != blob_count:
        raise UserError(f"{where}: {blob_count} blobs are announced and {len(written)} are there")


def _read_block(data: bytes, offset: int, count: int, tagged: bool, where: str) -> tuple[Block, int]:
    tag: int | None = None
    dtype: np.dtype[np.generic] = np.dtype("<f4")
    if tagged:
        tag = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
        if tag not in _TAGS:
            raise UserError(f"{where}: weights of an unknown kind (tag {tag:#010x})")
        dtype = _TAGS[tag]
    size = count * dtype.itemsize
    padded = size + -size % 4
    if offset + padded > len(data):
        raise UserError(f"{where}: {padded} bytes of weights are expected and {max(0, len(data) - offset)} are left")
    if any(data[offset + size : offset + padded]):
        raise UserError(f"{where}: the bytes that fill up to a multiple of four are not zero")
    return Block(np.frombuffer(data, dtype, count, offset), tag), offset + padded


def _convolution(layer: Layer) -> list[tuple[int, bool]]:
    if layer.integer(19):  # its weights are another layer's output
        return []
    outputs, term = layer.integer(0), layer.integer(8)
    blocks = [(layer.integer(6), True)] + [(outputs, False)] * bool(layer.integer(5))
    if term:
        depthwise = layer.kind == "ConvolutionDepthWise"
        scales = (layer.integer(7, 1) if term % 100 == 1 else 1) if depthwise else outputs
        blocks += [(scales, False), (1, False)] + [(1, False)] * (term > 100)
    return blocks


def _inner_product(layer: Layer) -> list[tuple[int, bool]]:
    outputs = layer.integer(0)
    blocks = [(layer.integer(2), True)] + [(outputs, False)] * bool(layer.integer(1))
    return blocks + ([(outputs, False), (1, False)] if layer.integer(8) else [])


def _float_convolution(dynamic: int) -> Callable[[Layer], list[tuple[int, bool]]]:
    """A kind without int8 weights; key of whether its weights are another layer's output."""

    def blocks(layer: Layer) -> list[tuple[int, bool]]:
        own = [(layer.integer(6), True)] + [(layer.integer(0), False)] * bool(layer.integer(5))
        return [] if layer.integer(dynamic) else own

    return blocks


def _memory(layer: Layer) -> list[tuple[int, bool]]:
    sizes = [layer.integer(key) for key in (0, 1, 11, 2)]
    return [(math.prod(size for size in sizes if size), layer.integer(21, 1) == 0)]


def _scale(layer: Layer) -> list[tuple[int, bool]]:
    size = layer.integer(0)
    return [] if size == -233 else [(size, False)] * (1 + bool(layer.integer(1)))


def _gemm(layer: Layer) -> list[tuple[int, bool]]:
    if layer.integer(18):
        raise UserError(f"layer {layer.name}: a quantised Gemm has weights that this reader does not know")
    m, n, k = (layer.integer(key) for key in (7, 8, 9))
    blocks = [(k * m, True)] * bool(layer.integer(4)) + [(n * k, True)] * bool(layer.integer(5))
    broadcast = layer.integer(10)
    if layer.integer(6) and broadcast != -1:
        sizes = {0: 1, 1: m, 2: m, 3: m * n, 4: n}
        blocks.append((sizes.get(broadcast, 0), True))
    return blocks


def _attention(layer: Layer) -> list[tuple[int, bool]]:
    if layer.integer(18):
        raise UserError(f"layer {layer.name}: a quantised attention has weights that this reader does not know")
    width = layer.integer(0)
    if width < 1:
        return [(0, True)]
    inputs = (layer.integer(2) // width, layer.integer(3, width), layer.integer(4, width))
    blocks = [block for size in inputs for block in ((width * size, True), (width, False))]
    return [*blocks, (inputs[0] * width, True), (inputs[0], False)]


def _affine(size: int, switch: int) -> Callable[[Layer], list[tuple[int, bool]]]:
    """A gain and an offset for each channel; keys of their number and of whether there are any (1 where unsaid)."""
    return lambda layer: [(layer.integer(size), False)] * 2 if layer.integer(switch, 1) else []


def _plain(key: int, times: int = 1) -> Callable[[Layer], list[tuple[int, bool]]]:
    """So many arrays of the length that a parameter gives."""
    return lambda layer: [(layer.integer(key), False)] * times


_TAGS: dict[int, np.dtype[np.generic]] = {
    FP32_TAG: np.dtype("<f4"),
    _RAW_TAG: np.dtype("<f4"),
    FP16_TAG: np.dtype("<f2"),
    INT8_TAG: np.dtype("<i1"),
}
_BLOCKS: dict[str, Callable[[Layer], list[tuple[int, bool]]]] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Convolution1D": _float_convolution(19),
    "Deconvolution": _float_convolution(28),
    "DeconvolutionDepthWise": _float_convolution(28),
    "InnerProduct": _inner_product,
    "MemoryData": _memory,
    "BatchNorm": _plain(0, 4),
    "Bias": _plain(0),
    "PReLU": _plain(0),
    "Scale": _scale,
    "LayerNorm": _affine(0, 2),
    "InstanceNorm": _affine(0, 2),
    "GroupNorm": _affine(1, 3),
    "RMSNorm": lambda layer: [(layer.integer(0), False)] * bool(layer.integer(2, 1)),
    "Normalize": _plain(3),
    "Padding": lambda layer: [(layer.integer(6), False)] * bool(layer.integer(6)),
    "Gemm": _gemm,
    "MultiHeadAttention": _attention,
}
_UNKNOWN_WEIGHTS = {
    *("Convolution3D", "ConvolutionDepthWise1D", "ConvolutionDepthWise3D", "DeformableConv2D"),
    *("Deconvolution1D", "Deconvolution3D", "DeconvolutionDepthWise1D", "DeconvolutionDepthWise3D"),
    *("Quantize", "Dequantize", "Requantize", "Embed", "RNN", "LSTM", "GRU"),
}


def _short(word: str) -> str:
    return repr(word if len(word) <= 60 else word[:57] + "...")
