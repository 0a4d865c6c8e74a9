"""An .onnx file to a torch network: normalised float32 (n, 3, height, width) in, logits (n, classes) out."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgecnn.errors import UserError, first_line, one_line_where_damaged
from edgecnn.onnx_graph.builder import Builder, Op, Value
from edgecnn.onnx_graph.onnx_file import Input, input_of, opset_of, output_of, read_model
from edgecnn.onnx_graph.operators import OPERATORS

if TYPE_CHECKING:
    from onnx import ModelProto

_ENDS = {F.softmax: "softmax", F.log_softmax: "log_softmax", torch.sigmoid: "sigmoid"}
"""What turns scores into shares and leaves their order."""
_Affine: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Scale and shift of each channel."""
_MOVES = (torch.flatten, torch.reshape)


@dataclass(frozen=True)
class Normalisation:
    """What the graph itself does to pixels 0..255 before its first layer: (pixel / 255 - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Network:
    """What an .onnx file became."""

    module: nn.Module
    """float32 (n, 3, height, width), normalised, to float32 (n, outputs)."""
    outputs: int
    normalisation: Normalisation | None
    """Set where the file takes uint8 pixels: taken out of `module`, to be applied before it."""
    ends: tuple[str, ...]
    """softmax, log_softmax, sigmoid: what the file ends in, in their order, and `module` does not."""
    remarks: tuple[str, ...] = ()
    """What else was done to it."""
    single: bool = False
    """Whether the file has one output, z: `module` gives -z/2 and z/2, whose softmax is z's sigmoid."""


def load_network(path: Path, height: int, width: int) -> Network:
    """Build the network of an .onnx file for images of that size.

    Raises UserError: what `read_model` and `input_of` refuse, another input size, operators that are not
    read (all of them), an output that is not one row of scores for an image.
    """
    found = read_model(path)
    model = found.model
    entry = input_of(path, model)
    if (entry.height or height, entry.width or width) != (height, width):
        raise UserError(
            f"{path}: takes {entry.height}×{entry.width} pixels, the preprocessing gives {height}×{width}: "
            "give --size, or size in --preprocess"
        )
    with one_line_where_damaged(path, "ONNX model"):
        constants, ops = _initializers(model), _operations(model)
    _refuse_unknown(path, ops, constants)
    ops, start, normalisation = _without_normalisation(path, ops, entry, constants)
    try:
        with torch.no_grad():
            made = _build(ops, constants, start, entry, output_of(model), height, width, normalisation)
            return replace(made, remarks=found.remarks)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # torch's, of a graph that does not fit together
        raise UserError(f"{path}: cannot be built: {type(error).__name__}: {first_line(error)}") from None


def _build(
    ops: list[Op],
    constants: dict[str, Tensor],
    start: str,
    entry: Input,
    output: str,
    height: int,
    width: int,
    normalisation: Normalisation | None,
) -> Network:
    build = Builder(batch=entry.batch)
    image = build.image(torch.zeros(1, 3, height, width))
    values: dict[str, Value] = {name: Value(tensor, None) for name, tensor in constants.items()}
    if entry.layout == "nhwc" and normalisation is None:
        image = build.call(torch.permute, image, (0, 2, 3, 1))
    values[start] = image
    if start != entry.name:  # still asked for its shape
        pixels = (1, 3, height, width) if entry.layout == "nchw" else (1, height, width, 3)
        values[entry.name] = Value(torch.zeros(pixels, dtype=torch.uint8), None)
    for op in ops:
        values.update(_run(build, op, [values[name] if name else None for name in op.inputs]))
    scores, ends = _before_ends(values[output])
    if scores.tensor.dim() == 4 and tuple(scores.tensor.shape[2:]) == (1, 1):
        scores = build.call(torch.flatten, scores, 1)
    shape = tuple(scores.tensor.shape)
    if scores.node is None or len(shape) != 2 or shape[0] != 1 or scores.tensor.dtype != torch.float32:
        raise UserError(f"output {output!r} is {shape}: expected (n, classes), one row of scores for an image")
    module = build.finish(scores)
    _join_biases(module)
    if shape[1] > 1:
        return Network(module, shape[1], normalisation, ends)
    if {"softmax", "log_softmax"} & set(ends):
        raise UserError(f"output {output!r} is a softmax over one score, which says nothing: expected (n, classes)")
    _make_two_of_one(module)
    return Network(module, 2, normalisation, ends, single=True)


def _run(build: Builder, op: Op, inputs: list[Value | None]) -> dict[str, Value]:
    """The values that an operation gives, by name."""
    if op.kind == "Shape" and inputs[0] is not None:
        sizes = list(inputs[0].tensor.shape)[op.attributes.get("start", 0) : op.attributes.get("end")]
        return {op.outputs[0]: Value(torch.tensor(sizes, dtype=torch.int64), None)}
    if all(value is None or value.node is None for value in inputs):
        return _evaluated(op, [None if value is None else value.tensor for value in inputs])
    made = OPERATORS[op.kind](build, op, inputs)
    # Of MaxPool, Dropout and BatchNormalization only the first output is a value of an inference graph.
    results = made if isinstance(made, list) else [made]
    return dict(zip(op.outputs, results, strict=False))


def _evaluated(op: Op, inputs: list[Tensor | None]) -> dict[str, Value]:
    """An operation on constants, by onnx's own reference implementation."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [f"i{number}" if tensor is not None else "" for number, tensor in enumerate(inputs)]
    node = helper.make_node(op.kind, names, list(op.outputs), **op.attributes)
    evaluator = ReferenceEvaluator(node, opsets={"": op.opset})
    given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True) if tensor is not None}
    results = evaluator.run(None, given)
    return {
        name: Value(torch.from_numpy(np.array(result)), None)
        for name, result in zip(op.outputs, results, strict=False)
        if name
    }


def _before_ends(value: Value) -> tuple[Value, tuple[str, ...]]:
    """The scores before every softmax and sigmoid at the end, whatever shapes lie between; the first of them first."""
    taken_off: list[str] = []
    while True:
        node, passed = value.node, False
        while node is not None and node.op == "call_function" and node.target in _MOVES:
            node, passed = node.args[0] if isinstance(node.args[0], fx.Node) else None, True
        if node is None or node.op != "call_function" or node.target not in _ENDS:
            return value, tuple(reversed(taken_off))
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node.replace_all_uses_with(source)
        taken_off.append(_ENDS[node.target])
        value = value if passed else Value(value.tensor, source)


def _make_two_of_one(module: fx.GraphModule) -> None:
    """The score z of a class against another becomes -z/2 and z/2: in the last layer, where that is linear."""
    end = next(node for node in module.graph.nodes if node.op == "output")
    score = end.args[0]
    assert isinstance(score, fx.Node)
    layer = module.get_submodule(str(score.target)) if score.op == "call_module" else None
    if isinstance(layer, nn.Linear) and len(score.users) == 1:
        wide = nn.Linear(layer.in_features, 2, layer.bias is not None)
        wide.weight.copy_(torch.cat([layer.weight / -2, layer.weight / 2]))
        if layer.bias is not None:
            wide.bias.copy_(torch.cat([layer.bias / -2, layer.bias / 2]))
        module.set_submodule(str(score.target), wide.eval())
        return
    with module.graph.inserting_before(end):
        halves = [module.graph.call_function(operator.mul, (score, by)) for by in (-0.5, 0.5)]
        end.args = (module.graph.call_function(torch.cat, (halves, 1)),)
    module.recompile()


def _join_biases(module: fx.GraphModule) -> None:
    """A matrix product and the constant that is added to it become one linear layer with a bias."""
    for node in list(module.graph.nodes):
        if node.op != "call_module" or len(node.users) != 1:
            continue
        layer = module.get_submodule(str(node.target))
        user = next(iter(node.users))
        if not isinstance(layer, nn.Linear) or layer.bias is not None or user.target is not operator.add:
            continue
        others = [argument for argument in user.args if argument is not node]
        if len(others) != 1 or not isinstance(others[0], fx.Node) or others[0].op != "get_attr":
            continue
        constant = module.get_buffer(str(others[0].target))
        if tuple(constant.shape) == (layer.out_features,):
            layer.bias = nn.Parameter(constant.clone())
            user.replace_all_uses_with(node)
            module.graph.erase_node(user)
    module.graph.eliminate_dead_code()
    module.recompile()


def _initializers(model: ModelProto) -> dict[str, Tensor]:
    from onnx import numpy_helper

    return {
        tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))) for tensor in model.graph.initializer
    }


def _operations(model: ModelProto) -> list[Op]:
    from onnx import helper

    opset = opset_of(model)
    return [
        Op(
            kind=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}",
            name=node.name or node.output[0],
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={entry.name: _plain(helper.get_attribute_value(entry)) for entry in node.attribute},
            opset=opset,
        )
        for node in model.graph.node
    ]


def _plain(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def _refuse_unknown(path: Path, ops: Iterable[Op], constants: Mapping[str, Tensor]) -> None:
    """UserError with every operation on the image that is not read."""
    ops = list(ops)
    known = {"", *constants}
    unknown: dict[str, str] = {}
    for op in ops:
        if op.kind == "Shape" or set(op.inputs) <= known:
            known.update(op.outputs)
        elif op.kind not in OPERATORS:
            unknown.setdefault(op.kind, op.name)
    if unknown:
        listed = ", ".join(f"{kind} (node {name!r})" for kind, name in unknown.items())
        raise UserError(
            f"{path}: {listed}: not among the {len(OPERATORS)} operators that are read, those of convolutional "
            "classifiers: export the network without it, or give its weights with --model"
        )


def _without_normalisation(
    path: Path, ops: list[Op], entry: Input, constants: Mapping[str, Tensor]
) -> tuple[list[Op], str, Normalisation | None]:
    """Of a file that takes uint8 pixels: the operations after its own normalisation, and the name of its result.

    The chain from the input is followed while it moves the channels first, turns to float, and scales and shifts by
    channel.
    """
    if entry.pixels == "float":
        return ops, entry.name, None
    layout: str = entry.layout
    name = entry.name
    scale, shift = np.ones(3), np.zeros(3)
    known = dict(constants)
    done: set[int] = set()
    while True:
        users = [(i, op) for i, op in enumerate(ops) if name in op.inputs and op.kind != "Shape"]
        for op in ops:
            if op.kind == "Constant" and op.outputs[0] not in known:
                known[op.outputs[0]] = _evaluated(op, [])[op.outputs[0]].tensor
        step = _step(users[0][1], name, layout, known, (scale, shift)) if len(users) == 1 else None
        if step is None:
            break
        layout, scale, shift = step
        done.add(users[0][0])
        name = users[0][1].outputs[0]
    if layout != "nchw" or not done or (scale <= 0).any():
        raise UserError(f"{path}: takes uint8 pixels, but how it normalises them cannot be read from its graph")
    std = 1 / (255 * scale)
    normalisation = Normalisation(_three(-shift * std), _three(std))
    return [op for i, op in enumerate(ops) if i not in done], name, normalisation


def _step(
    op: Op, name: str, layout: str, constants: Mapping[str, Tensor], affine: _Affine
) -> tuple[str, NDArray[np.float64], NDArray[np.float64]] | None:
    """One operation of the normalisation: layout, scale and shift after it; None where it is something else."""
    scale, shift = affine
    if op.kind in ("Identity", "Cast"):
        return layout, scale, shift
    if op.kind == "Transpose" and layout == "nhwc" and list(op.attributes.get("perm", [])) == [0, 3, 1, 2]:
        return "nchw", scale, shift
    others = [constants.get(given) for given in op.inputs if given != name]
    if op.kind not in ("Add", "Sub", "Mul", "Div") or len(others) != 1 or others[0] is None:
        return None
    if op.kind in ("Sub", "Div") and op.inputs[0] != name:
        return None
    number = others[0].double().numpy()
    axis = 1 if layout == "nchw" else 3
    shape = (1,) * (4 - number.ndim) + number.shape
    if number.size not in (1, 3) or (number.size == 3 and shape[axis] != 3):
        return None
    number = number.reshape(-1)
    if op.kind in ("Add", "Sub"):
        return layout, scale, shift + (number if op.kind == "Add" else -number)
    factor = number if op.kind == "Mul" else 1 / number
    return layout, scale * factor, shift * factor


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Rounded to float32's own digits: 0.485 is 0.485 again."""
    red, green, blue = (
        float(np.format_float_positional(np.float32(value), 7, unique=True, fractional=False)) for value in values
    )
    return red, green, blue
