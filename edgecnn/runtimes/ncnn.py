"""ncnn on the CPU."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images, Pixels
from edgecnn.modelfiles.ncnn import Layer, int8_scale_term, load, weights_beside
from edgecnn.runtimes import Logits, Runtime, Session


class _Session(Session):
    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        self._precision = precision
        self._net, self._layers = open_net(path, precision, threads)
        self._input = next(layer for layer in self._layers if layer.kind == "Input")
        self._output = _output_of(self._layers)

    def run(self, images: Images) -> Logits:
        """One image after the other: the graph has no batch."""
        height, width = self._input.integer(1), self._input.integer(0)
        if images.shape[1:] != (height, width, 3):
            raise UserError(f"ncnn: images of {images.shape[1:]} where the network takes {(height, width, 3)}")
        return np.stack([self._answer(image) for image in images])

    def executed(self) -> Executed:
        """Each layer's precision and the conversions between, from one image that ncnn keeps all blobs of."""
        blank = np.zeros((self._input.integer(1), self._input.integer(0), 3), np.uint8)
        blobs = _blobs_of(self._net, self._layers, blank)
        shapes = {name: shape for name, (shape, _) in blobs.items()}
        bits = {name: stored for name, (_, stored) in blobs.items()}
        half = self._precision == "fp16" and _computes_fp16()
        layers = []
        for layer, made in zip(self._layers, self._net.layers(), strict=True):
            if layer.kind in _MACS:
                floating = "fp16" if half and made.support_fp16_storage else "fp32"
                precision = "int8" if int8_scale_term(layer) else floating
                macs = _MACS[layer.kind](layer, shapes)
                layers.append(ExecutedLayer(name=layer.name, kind=layer.kind, precision=precision, macs=macs))
        int8 = [layer for layer in self._layers if int8_scale_term(layer)]
        quantised = sum(bits[layer.bottoms[0]] != 8 for layer in int8)
        dequantised = sum(bits[layer.tops[0]] != 8 for layer in int8)
        return Executed(
            layers=tuple(layers),
            providers=("CPU",),
            remarks=tuple(_remarks(self._precision, layers)),
            quantize_ops=quantised + dequantised,
            requantized_layers=len(int8) - dequantised,
            fp16_storage=any(stored == 16 for stored in bits.values()),
        )

    def close(self) -> None:
        self._net.clear()
        del self._net

    def _answer(self, image: Pixels) -> Logits:
        extractor = self._net.create_extractor()
        # Kept in a variable until the answer is there: ncnn does not own what Python gives it.
        pixels = _pixels(image)
        extractor.input(self._input.tops[0], pixels)
        code, logits = extractor.extract(self._output)
        if code != 0:
            raise UserError(f"ncnn: the network did not run (code {code}): not enough memory?")
        return np.array(logits, np.float32).reshape(-1)


def open_net(path: Path, precision: Precision, threads: int) -> tuple[Any, tuple[Layer, ...]]:
    """A loaded ncnn.Net and its layers. UserError where the files are damaged or of another precision."""
    import ncnn

    try:
        layers = load(path).layers
    except UserError as error:
        raise UserError(f"{path}: ncnn cannot open it: {error}") from None
    quantised = any(map(int8_scale_term, layers))
    if quantised != (precision == "int8"):
        raise UserError(f"{path}: ncnn cannot open it: its weights are {'' if quantised else 'not '}int8")
    if sum(layer.kind == "Input" for layer in layers) != 1:
        raise UserError(f"{path}: ncnn cannot open it: one Input layer is expected")
    net = ncnn.Net()
    half = precision == "fp16"
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    # On an Arm processor ncnn's own default is fp16 storage and arithmetic, which nobody asked for.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = False
    net.opt.use_int8_inference = precision == "int8"
    # x86 has instructions for sums of int8 products, beside which its Winograd kernels in int16 are slow. On Arm they
    # are fast, and used only where such instructions are missing.
    net.opt.use_winograd_convolution = precision != "int8" or platform.machine() not in ("x86_64", "AMD64")
    # Spinning threads steal the core from decoding the next image.
    net.opt.openmp_blocktime = 0
    if net.load_param(str(path)) != 0 or net.load_model(str(weights_beside(path))) != 0:
        raise UserError(f"{path}: ncnn cannot open it: this version does not know a layer or a parameter of it")
    return net, layers


def tensors(net: Any, layers: tuple[Layer, ...], image: Pixels, names: list[str]) -> dict[str, Any]:
    """Blobs by name for one image, float32, as `edgecnn.quantize.observe` wants them."""
    extractor = net.create_extractor()
    extractor.set_light_mode(False)
    pixels = _pixels(image)
    extractor.input(next(layer for layer in layers if layer.kind == "Input").tops[0], pixels)
    return {name: np.array(extractor.extract(name)[1], np.float32) for name in names}


def _pixels(image: Pixels) -> Any:
    """float 0 to 255, channels first, in ncnn's own memory."""
    import ncnn

    image = np.ascontiguousarray(image)
    return ncnn.Mat.from_pixels(image, ncnn.Mat.PixelType.PIXEL_RGB, image.shape[1], image.shape[0])


def _output_of(layers: tuple[Layer, ...]) -> str:
    """The one blob that no layer reads."""
    read = {blob for layer in layers for blob in layer.bottoms}
    ends = [blob for layer in layers for blob in layer.tops if blob not in read]
    if len(ends) != 1:
        raise UserError(f"ncnn: the network has {len(ends)} outputs where one is expected")
    return ends[0]


def _blobs_of(net: Any, layers: tuple[Layer, ...], image: Pixels) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape, channels first, and bits of an element of every blob, as ncnn stored it."""
    extractor = net.create_extractor()
    extractor.set_light_mode(False)
    pixels = _pixels(image)
    extractor.input(next(layer for layer in layers if layer.kind == "Input").tops[0], pixels)
    found = {}
    for name in (blob for layer in layers for blob in layer.tops):
        _, blob = extractor.extract(name, 1)  # 1: as stored, with several channels interleaved
        sizes = {1: (blob.w,), 2: (blob.h, blob.w), 3: (blob.c, blob.h, blob.w)}
        shape = sizes.get(blob.dims, (blob.c, blob.d, blob.h, blob.w))
        found[name] = ((shape[0] * blob.elempack, *shape[1:]), blob.elembits())
    return found


def _computes_fp16() -> bool:
    """ncnn has fp16 arithmetic for Arm processors with the asimdhp instructions (Cortex-A55, A76 and later)."""
    import ncnn

    return bool(ncnn.cpu_support_arm_asimdhp())


def _remarks(precision: Precision, layers: list[ExecutedLayer]) -> list[str]:
    floats = [layer.name for layer in layers if layer.precision != "int8"]
    if precision == "fp16" and any(layer.precision == "fp32" for layer in layers):
        return [f"fp16 was asked for and ncnn computes in fp32 on this processor ({platform.machine()})"]
    if precision == "int8" and floats:
        return [f"{len(floats)} of {len(layers)} layers are float in this file: {', '.join(floats[:8])}"]
    return []


Shapes = Mapping[str, tuple[int, ...]]


def _sliding(layer: Layer, shapes: Shapes) -> int:
    """Each weight is used once for each place of the output."""
    return layer.integer(6) * int(np.prod(shapes[layer.tops[0]][1:]))


def _transposed(layer: Layer, shapes: Shapes) -> int:
    """Each weight is used once for each place of the input."""
    return layer.integer(6) * int(np.prod(shapes[layer.bottoms[0]][1:]))


def _inner_product(layer: Layer, shapes: Shapes) -> int:
    shape = shapes[layer.tops[0]]
    return layer.integer(2) * (shape[0] if len(shape) == 2 else 1)


def _product(layer: Layer, shapes: Shapes) -> int:
    """Of two matrices: each value of the result takes as many as the factors share."""
    shared = layer.integer(9) or shapes[layer.bottoms[0]][0 if layer.integer(2) and layer.kind == "Gemm" else -1]
    return int(np.prod(shapes[layer.tops[0]])) * shared


def _attention(layer: Layer, shapes: Shapes) -> int:
    """The four projections and the two products of attention."""
    width, length = layer.integer(0), shapes[layer.bottoms[0]][0]
    sizes = (layer.integer(2) // width, layer.integer(3, width), layer.integer(4, width))
    return length * width * (sum(sizes) + sizes[0]) + 2 * length * length * width


def _dot_products(layer: Layer, shapes: Shapes) -> int:
    """Scaled-dot-product attention: queries with keys, then with values."""
    query, key, value = (shapes[blob] for blob in layer.bottoms[:3])
    return int(np.prod(query[:-1])) * key[-2] * (query[-1] + value[-1])


_MACS: dict[str, Callable[[Layer, Shapes], int]] = {
    "Convolution": _sliding,
    "ConvolutionDepthWise": _sliding,
    "Deconvolution": _transposed,
    "DeconvolutionDepthWise": _transposed,
    "InnerProduct": _inner_product,
    "Gemm": _product,
    "MatMul": _product,
    "MultiHeadAttention": _attention,
    "SDPA": _dot_products,
}

RUNTIME = Runtime(runs=("ncnn",), libraries=("ncnn",), extra="ncnn", open=_Session)
