"""An .onnx graph made plain before it is built: in float32, with one output, without what does not count."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecnn.errors import UserError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
"""TensorProto.DataType."""
_NAMES = {_FLOAT16: "float16", _BFLOAT16: "bfloat16", _DOUBLE: "float64"}
_DECIDES = ("ArgMax", "TopK")
_KEEPS_DECISION = ("Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Gather")


@dataclass(frozen=True)
class Prepared:
    """A model whose one output, as far as its file tells, are scores in float32."""

    model: ModelProto
    remarks: tuple[str, ...]
    """What was done to it, for the record."""
    rounded: bool
    """Whether the file itself computes in another precision."""


def prepared(model: ModelProto) -> Prepared:
    """Float16, bfloat16 and float64 to float32; the choice of a class at its end cut off; of several outputs the last.

    Raises UserError where several outputs are left of which none comes after the others.
    """
    remarks = []
    kinds = _other_floats(model.graph)
    if kinds:
        _to_float32(model.graph)
        remarks.append(f"computes in {' and '.join(sorted(kinds))}: taken in as float32")
    remarks += _settle_outputs(model)
    _prune(model.graph)
    return Prepared(model, tuple(remarks), bool(kinds))


def put_in_order(graph: GraphProto) -> None:
    """Each node after those that it takes from: ONNX Runtime's converters do not keep to it, nor does it ask for it.

    A graph that goes in circles stays as it is.
    """
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    takes = [sorted({makers[name] for name in node.input if name in makers}) for node in graph.node]
    if all(place > max(earlier, default=-1) for place, earlier in enumerate(takes)):
        return
    order: list[int] = []
    left = [len(earlier) for earlier in takes]
    users: dict[int, list[int]] = {}
    for place, earlier in enumerate(takes):
        for one in earlier:
            users.setdefault(one, []).append(place)
    ready = [place for place, count in enumerate(left) if not count]
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for user in users.get(place, ()):
            left[user] -= 1
            if not left[user]:
                heapq.heappush(ready, user)
    if len(order) == len(graph.node):
        nodes = [type(node).FromString(node.SerializeToString()) for node in graph.node]
        del graph.node[:]
        graph.node.extend(nodes[place] for place in order)


def _other_floats(graph: GraphProto) -> set[str]:
    """Of its weights and its input; float64 that is only a number in between does not count."""
    found = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1 or tensor.data_type != _DOUBLE}
    found |= {entry.type.tensor_type.elem_type for entry in graph.input}
    found |= {tensor.data_type for tensor in _tensors_of(graph.node) if len(tensor.dims) > 1}
    return {_NAMES[kind] for kind in found if kind in _NAMES}


def _tensors_of(nodes: Iterable[NodeProto]) -> list[Any]:
    return [entry.t for node in nodes for entry in node.attribute if entry.HasField("t")]


def _to_float32(graph: GraphProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    for tensor in [*graph.initializer, *_tensors_of(graph.node)]:
        if tensor.data_type in _NAMES:
            values = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for entry in (entry for node in graph.node if node.op_type == "Cast" for entry in node.attribute):
        if entry.name == "to" and entry.i in _NAMES:
            entry.i = _FLOAT
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type in _NAMES:
            value.type.tensor_type.elem_type = _FLOAT
    del graph.value_info[:]


def _settle_outputs(model: ModelProto) -> list[str]:
    """Leave one output; what is said of it."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output if name}
    names = [str(entry.name) for entry in graph.output]
    if not names:
        raise UserError("has no output: damaged, or a part of a network?")
    scores = {name: _scores_before(name, makers) for name in names}
    plain = [name for name in names if scores[name] is None]
    decided = [name for name in names if scores[name] is not None]
    if not plain:
        before = list(dict.fromkeys(str(scores[name]) for name in decided))
        if len(before) == 1:
            _set_output(model, before[0])
            return [
                f"ends in the choice of a class ({_kind_of_choice(decided[0], makers)}): the scores before it are taken"
            ]
        plain = before
    last = [name for name in plain if set(plain) <= {name, *_before(name, makers)}]
    if len(plain) > 1 and not last:
        raise UserError(
            f"{len(plain)} outputs ({', '.join(plain)}): expected one, the class scores: cut the others off with "
            f"onnx.utils.extract_model(…, output_names=[{plain[0]!r}])"
        )
    taken = last[0] if last else plain[0]
    if len(names) > 1:
        _set_output(model, taken)
        return [f"of its {len(names)} outputs ({', '.join(names)}) {taken} is taken"]
    return []


def _kind_of_choice(name: str, makers: dict[str, NodeProto]) -> str:
    """ArgMax or TopK, whichever the output comes from."""
    node = makers[name]
    while node.op_type not in _DECIDES:
        node = makers[node.input[0]]
    return str(node.op_type)


def _scores_before(name: str, makers: dict[str, NodeProto]) -> str | None:
    """The scores that an output chooses a class from; None where it is no such choice."""
    node = makers.get(name)
    while node is not None and node.op_type in _KEEPS_DECISION and node.input:
        name = node.input[0]
        node = makers.get(name)
    if node is None or node.op_type not in _DECIDES:
        return None
    return str(node.input[0])


def _before(name: str, makers: dict[str, NodeProto]) -> set[str]:
    """Every value that one is computed from."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = makers.get(waiting.pop())
        new = [one for one in (node.input if node is not None else ()) if one and one not in found]
        found.update(new)
        waiting += new
    return found


def _set_output(model: ModelProto, name: str) -> None:
    from onnx import helper, shape_inference

    known = {entry.name: entry for entry in model.graph.output}
    if name not in known:
        try:
            known = {entry.name: entry for entry in shape_inference.infer_shapes(model).graph.value_info}
        except shape_inference.InferenceError:
            known = {}
    entry = known.get(name) or helper.make_tensor_value_info(name, _FLOAT, ["n", "classes"])
    copy = type(entry).FromString(entry.SerializeToString())
    del model.graph.output[:]
    model.graph.output.append(copy)


def _prune(graph: GraphProto) -> None:
    """Without the nodes and the constants that no output needs."""
    makers = {name: node for node in graph.node for name in node.output if name}
    needed = {str(entry.name) for entry in graph.output}
    for name in list(needed):
        needed |= _before(name, makers)
    if any(entry.HasField("g") for node in graph.node for entry in node.attribute):
        return  # what a branch needs stands in it
    nodes = [node for node in graph.node if needed & set(node.output)]
    if len(nodes) < len(graph.node):
        kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        tensors = [type(one).FromString(one.SerializeToString()) for one in graph.initializer if one.name in needed]
        del graph.initializer[:]
        graph.initializer.extend(tensors)
