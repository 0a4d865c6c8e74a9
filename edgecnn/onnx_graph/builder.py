"""Builds a torch.fx graph while it runs on one image: every value is known, so that every shape is."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgecnn.errors import UserError

MERGES = "merges the batch"
"""Key in the meta of a node that mixes the images of a batch; such a node must be gone when the graph is finished."""

HELD = "held"
"""Key of the tensor that a node gave for the one image, while the graph is being built."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph."""

    tensor: Tensor
    """What it holds for the one image that the graph is built with."""
    node: fx.Node | None
    """None for a constant."""


@dataclass(frozen=True)
class Op:
    """A node of the ONNX graph."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def refuse(self, problem: str) -> UserError:
        """The error of a node that is read, but not in this use."""
        return UserError(f"{self.kind} (node {self.name!r}) {problem}")


@dataclass
class Builder:
    """The graph so far."""

    root: nn.Module = field(default_factory=nn.Module)
    graph: fx.Graph = field(default_factory=fx.Graph)
    batch: int | None = None
    """Images that the file takes at once, where it is written for so many: its shapes begin with it."""
    _paths: set[str] = field(default_factory=set)

    def image(self, tensor: Tensor) -> Value:
        """The graph's input."""
        return Value(tensor, self.graph.placeholder("images"))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        """A call of a torch function on values and plain arguments."""
        tensor = function(*_tensors(args), **_tensors(kwargs))
        node = self.graph.call_function(function, tuple(self._nodes(args)), self._nodes(kwargs))
        node.meta[HELD] = tensor
        return Value(tensor, node)

    def parts(self, function: Callable[..., Any], count: int, *args: Any) -> list[Value]:
        """A call that gives `count` tensors."""
        tensors = function(*_tensors(args))
        node = self.graph.call_function(function, tuple(self._nodes(args)))
        return [
            Value(tensors[index], self.graph.call_function(operator.getitem, (node, index))) for index in range(count)
        ]

    def layer(self, path: str, layer: nn.Module, value: Value) -> Value:
        """A layer with weights, under the name that it had."""
        path = self._free(path)
        parent, _, name = path.rpartition(".")
        owner = self.root
        for part in parent.split(".") if parent else []:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(name, layer.eval())
        with torch.no_grad():
            return Value(layer(value.tensor), self.graph.call_module(path, (value.node,)))

    def finish(self, value: Value) -> fx.GraphModule:
        """The graph that gives `value`, without what it does not need."""
        self.graph.output(value.node)
        module = fx.GraphModule(self.root, self.graph)
        module.graph.eliminate_dead_code()
        for node in module.graph.nodes:
            node.meta.pop(HELD, None)
            if MERGES in node.meta:
                raise UserError(
                    f"{node.meta[MERGES]} mixes the images of a batch: not a network for one image at a time"
                )
        module.recompile()
        module.delete_all_unused_submodules()
        return module.eval()

    def _nodes(self, argument: Any) -> Any:
        """Arguments as the graph has them."""
        if isinstance(argument, Value):
            return argument.node if argument.node is not None else self._constant(argument.tensor)
        if isinstance(argument, Mapping):
            return {key: self._nodes(item) for key, item in argument.items()}
        if isinstance(argument, list | tuple):
            return type(argument)(self._nodes(item) for item in argument)
        return argument

    def _constant(self, tensor: Tensor) -> Any:
        name = self._free("constant")
        self.root.register_buffer(name, tensor)
        return self.graph.get_attr(name)

    def _free(self, path: str) -> str:
        """`path`, or that with a number, so that no other name is equal to it or lies inside or around it."""
        parts = [re.sub(r"\W+", "_", part).strip("_") for part in path.split(".")]
        # "type", "train", … are a module's own attributes.
        parts = [f"{part}_" if hasattr(nn.Module, part) else part for part in parts if part]
        wanted = ".".join(parts) or "layer"
        number = 0
        found = wanted
        while any(f"{found}.".startswith(f"{taken}.") or f"{taken}.".startswith(f"{found}.") for taken in self._paths):
            number += 1
            found = f"{wanted.replace('.', '_')}_{number}"
        self._paths.add(found)
        return found


def _tensors(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument.tensor
    if isinstance(argument, Mapping):
        return {key: _tensors(item) for key, item in argument.items()}
    if isinstance(argument, list | tuple):
        return type(argument)(_tensors(item) for item in argument)
    return argument
