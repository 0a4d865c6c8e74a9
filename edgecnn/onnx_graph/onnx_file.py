"""An .onnx file on disk: read whole and judged before anything is made of it. Whatever is wrong is one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgecnn.errors import UserError, first_line, must_be_file, one_line_where_damaged
from edgecnn.filekinds import kind_of
from edgecnn.onnx_graph.prepared import Prepared, prepared, put_in_order

if TYPE_CHECKING:
    from onnx import ModelProto

OLDEST_OPSET = 7
"""Before it, broadcasting and BatchNorm meant something else."""

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_FLOAT, _UINT8 = 1, 2
"""TensorProto.DataType."""


@dataclass(frozen=True)
class Input:
    """The one input of an image classifier."""

    name: str
    pixels: Literal["float", "uint8"]
    layout: Literal["nchw", "nhwc"]
    height: int | None
    """None where the file leaves it open."""
    width: int | None
    batch: int | None = None
    """Images that the file takes at once; None: any number."""


def read_model(path: Path) -> Prepared:
    """The onnx.ModelProto of `path` with its external data in it, its local functions inlined, made plain.

    Raises UserError: not an ONNX model, external data missing, newer than the installed onnx package, already
    quantised, several outputs, damaged.
    """
    import onnx
    from onnx import inliner

    must_be_file(path, "an .onnx file")
    kind = kind_of(path)
    if kind is not None and kind.name != "onnx":
        cure = {"torch": "give it the ending .pth, and its network with --model"}.get(kind.name, kind.cure)
        raise UserError(f"{path}: is {kind.words}{f': {cure}' if cure else ''}; expected an ONNX model")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own, of no common class
        raise UserError(f"{path}: not an ONNX model ({type(error).__name__}): damaged, or another format?") from None
    if not model.ir_version or not model.graph.node:
        raise UserError(f"{path}: not an ONNX model (no network in it): damaged, or another format?")
    _refuse_versions(path, model)
    _refuse_missing_data(path, model)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        put_in_order(model.graph)
        onnx.checker.check_model(model)
    except Exception as error:
        raise UserError(f"{path}: damaged ONNX model: {first_line(error)}") from None
    with one_line_where_damaged(path, "ONNX model"):
        model = inliner.inline_local_functions(model) if model.functions else model
        _refuse_quantised(path, model)
        try:
            return prepared(model)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def external_files(path: Path) -> list[Path]:
    """The files beside an .onnx file that its weights are in; none of what is no ONNX model: `read_model` says so."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's and onnx's own, of no common class
        return []
    return [path.parent / name for name in _locations(model) if (path.parent / name).is_file()]


def input_of(path: Path, model: ModelProto) -> Input:
    """The input: float (n, 3, h, w) or (n, h, w, 3), or uint8 pixels in either order. UserError for anything else."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    wanted = "one image input, float (n, 3, h, w) or uint8 (n, h, w, 3)"
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise UserError(f"{path}: {len(inputs)} inputs ({names}): expected {wanted}")
    name, kind = inputs[0].name, inputs[0].type.tensor_type
    sizes = [dim.dim_value or None for dim in kind.shape.dim]
    shown = tuple(size or "?" for size in sizes)
    if kind.elem_type not in (_FLOAT, _UINT8):
        raise UserError(f"{path}: input {name!r} has element type {kind.elem_type} of ONNX: expected {wanted}")
    channels_first = len(sizes) == 4 and (sizes[1] == 3 or (sizes[1:] == [None] * 3 and _enters_a_layer(model, name)))
    if len(sizes) != 4 or not (channels_first or sizes[3] == 3):
        grey = 1 in (sizes[1:2] + sizes[3:4])
        cure = (
            ": a network for grey images, and images are prepared as RGB: repeat its first layer's weights"
            if grey
            else ""
        )
        raise UserError(f"{path}: input {name!r} is {shown}: expected {wanted}{cure}")
    pixels: Literal["float", "uint8"] = "uint8" if kind.elem_type == _UINT8 else "float"
    if channels_first:
        return Input(name, pixels, "nchw", sizes[2], sizes[3], sizes[0])
    return Input(name, pixels, "nhwc", sizes[1], sizes[2], sizes[0])


def _enters_a_layer(model: ModelProto, name: str) -> bool:
    """Whether an image of unknown shape enters a convolution of three channels as it is."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    users = [node for node in model.graph.node if name in node.input]
    return bool(users) and all(node.op_type == "Conv" and weights.get(node.input[1], ())[1:2] == (3,) for node in users)


def output_of(model: ModelProto) -> str:
    """Name of the one output."""
    return str(model.graph.output[0].name)


def _refuse_versions(path: Path, model: ModelProto) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION:
        raise UserError(
            f"{path}: IR version {model.ir_version}, the installed onnx {onnx.__version__} reads up to "
            f"{onnx.IR_VERSION}: pip install -U onnx onnxruntime, or export for an older one"
        )
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError(
            f"{path}: opset {opset}, read are {OLDEST_OPSET} to {newest} (onnx {onnx.__version__}): export it again "
            "with one of them, or convert it with onnx.version_converter"
        )


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in."""
    return int(next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0))


def _refuse_missing_data(path: Path, model: ModelProto) -> None:
    missing = [name for name in _locations(model) if not (path.parent / name).is_file()]
    if missing:
        raise UserError(
            f"{path}: its weights are in {', '.join(missing)}, which is not beside it: copy that file too, or export "
            "with external_data=False"
        )


def _locations(model: ModelProto) -> list[str]:
    """Names of the files that hold weights of the model."""
    from onnx import TensorProto

    return sorted(
        {
            str(entry.value)
            for tensor in model.graph.initializer
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )


def _refuse_quantised(path: Path, model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in _QUANTISED or node.op_type.startswith(("QLinear", "QGemm", "QAttention")):
            raise UserError(
                f"{path}: already quantised ({node.op_type}, node {node.name or node.output[0]!r}): give the float32 "
                "file that it was made from, int8 is made and judged here"
            )
