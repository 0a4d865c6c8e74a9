"""OpenVINO: any .xml (or .onnx) file; inner tensors of fp32 and NNCF-quantised graphs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame.engines import Engine, Refused, Tensor, Tensors, as_taken, one_row, repeated
from edgecnn.blame.pipeline import Shape
from edgecnn.errors import UserError, last_line
from edgecnn.imaging import Images
from edgecnn.modelfiles.openvino import Compiled, Model, Operation

_LAYERS = {"Convolution", "GroupConvolution", "MatMul", "Add", "Multiply", "ReduceMean", "Concat", "AvgPool", "MaxPool"}
_CLAMPS = {"Relu", "Clamp", "HSwish", "Swish", "Sigmoid", "HSigmoid"}


class _Opened:
    def __init__(self, path: Path, threads: int, settings: dict[str, str] | None = None) -> None:
        self._model = _read(path)
        if len(self._model.inputs) != 1:
            raise UserError(f"{path}: it has {len(self._model.inputs)} inputs: one image is what can be run")
        entrance = self._model.input(0)
        self._dtype = entrance.get_element_type().to_dtype()
        self._shape = tuple(
            dimension.get_length() if dimension.is_static else None for dimension in entrance.partial_shape
        )
        self._compiled = _compiled(path, self._model, threads, settings)

    @property
    def shape(self) -> Shape:
        return self._shape

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        values = repeated(as_taken(values, self._dtype), self._shape)
        try:
            return one_row(self._compiled(values)[self._compiled.output(0)])
        except RuntimeError as error:
            raise Refused(last_line(error)) from None

    def precision(self) -> str | None:
        kinds = Counter(operation.get_type_name() for operation in self._model.get_ops())
        halves = sum(
            operation.get_type_name() == "Constant"
            and str(operation.get_element_type().get_type_name()) in ("f16", "bf16")
            for operation in self._model.get_ops()
        )
        words = [f"{halves} fp16 tensors"] * bool(halves)
        words += [f"{kinds['FakeQuantize']} int8 ranges"] * bool(kinds["FakeQuantize"])
        return ", ".join(words) or None


def _read(path: Path) -> Model:
    import openvino

    try:
        model: Model = openvino.Core().read_model(path)
        return model
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO cannot open it: {last_line(error)}") from None


def _compiled(path: Path, model: Model, threads: int, settings: dict[str, str] | None = None) -> Compiled:
    import openvino

    # The plugin's own default is bf16 or fp16 arithmetic where the processor has it.
    wanted = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32", **(settings or {})}
    try:
        compiled: Compiled = openvino.Core().compile_model(model, "CPU", wanted)
        return compiled
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO cannot open it: {last_line(error)}") from None


def _tensors(path: Path, images: Images) -> Tensors:
    model = _read(path)
    model.reshape([1, *(dimension.get_length() for dimension in model.input(0).partial_shape[1:])])
    kinds: dict[str, str] = {}
    ports = []
    layers = _layers(model)
    inside: set[str] = set()
    for operation in layers.values():
        name, shown = operation.get_friendly_name(), operation
        # A bias and a clamp are shown with the layer before them: the engine runs them as one kernel.
        while (reader := _only_reader(shown)) is not None and _belongs_to_a_layer(reader):
            shown = reader
            inside.add(reader.get_friendly_name())
        if name not in inside:
            kinds[name] = operation.get_type_name()
            ports.append(shown.output(0))
    added = model.add_outputs(ports)
    compiled = _compiled(path, model, 1)
    request = compiled.create_infer_request()
    collected: list[list[NDArray[np.float32]]] = [[] for _ in added]
    first = len(compiled.outputs) - len(added)
    for image in images:
        request.infer({0: image[None]})
        for index, into in enumerate(collected):
            into.append(np.array(request.get_output_tensor(first + index).data, np.float32))
    return {
        name: Tensor(kind, np.concatenate(values))
        for (name, kind), values in zip(kinds.items(), collected, strict=True)
    }


def _only_reader(operation: Operation) -> Operation | None:
    readers = operation.output(0).get_target_inputs()
    return next(iter(readers)).get_node() if len(readers) == 1 else None


def _belongs_to_a_layer(operation: Operation) -> bool:
    if operation.get_type_name() in _CLAMPS:
        return True
    others = [value.get_node().get_type_name() for value in operation.input_values()]
    return operation.get_type_name() == "Add" and any(kind in ("Constant", "Convert") for kind in others)


def _layers(model: Model) -> dict[str, Operation]:
    """Layers that depend on the image (an int8 file computes its weights from constants), by name."""
    living = {model.input(0).get_node().get_friendly_name()}
    found = {}
    for operation in model.get_ordered_ops():
        sources = {value.get_node().get_friendly_name() for value in operation.input_values()}
        if not sources & living:
            continue
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        living.add(name)
        if kind in _LAYERS and str(operation.get_output_element_type(0).get_type_name()).startswith("f"):
            found[name] = operation
    return found


ENGINE = Engine(
    suffixes=(".xml",),
    library="openvino",
    extra="openvino",
    open=lambda path, threads: _Opened(path, threads),
    tensors=_tensors,
)
