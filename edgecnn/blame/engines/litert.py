"""LiteRT: any .tflite file; every inner tensor, dequantised."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.blame.engines import Engine, Refused, Tensor, Tensors, as_taken, one_row
from edgecnn.blame.pipeline import Shape
from edgecnn.errors import UserError, first_line, one_line_where_damaged
from edgecnn.imaging import Images
from edgecnn.modelfiles.interpreter import Interpreter, TensorDetail
from edgecnn.modelfiles.tflite import hushed


class _Opened:
    def __init__(self, path: Path, threads: int, **settings: bool | int) -> None:
        self._interpreter = _interpreter(path, threads, **settings)
        with one_line_where_damaged(path, ".tflite model"):
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            raise UserError(
                f"{path}: it has {len(inputs)} inputs and {len(outputs)} outputs: one image is what can be run"
            )
        self._input, self._output = inputs[0], outputs[0]

    @property
    def shape(self) -> Shape:
        signature = self._input.get("shape_signature", self._input["shape"])
        return tuple(int(size) if size > 0 else None for size in signature)

    def run(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        scale, zero = self._input["quantization"]
        values = as_taken(values, self._input["dtype"], scale, zero)
        if tuple(self._input["shape"]) != values.shape:
            self._resize(values.shape)
        try:
            self._interpreter.set_tensor(self._input["index"], values)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise Refused(first_line(error)) from None
        return one_row(_dequantised(self._interpreter.get_tensor(self._output["index"]), self._output))

    def precision(self) -> str | None:
        kinds = Counter(np.dtype(one["dtype"]).name for one in self._interpreter.get_tensor_details())
        words = [
            f"{kinds[name]} {short} tensors" for name, short in (("float16", "fp16"), ("int8", "int8")) if kinds[name]
        ]
        return ", ".join(words) or None

    def _resize(self, shape: tuple[int, ...]) -> None:
        signature = self.shape
        if len(signature) != len(shape) or any(
            s not in (None, n) for s, n in zip(signature[1:], shape[1:], strict=True)
        ):
            raise Refused(f"it takes {tuple(self._input['shape'])}, described is {shape}")
        try:
            self._interpreter.resize_tensor_input(self._input["index"], shape)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise Refused(first_line(error)) from None
        self._input = self._interpreter.get_input_details()[0]


def _interpreter(path: Path, threads: int, **settings: bool | int) -> Interpreter:
    from ai_edge_litert import interpreter

    try:
        with hushed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all tensors takes memory
            opened: Interpreter = interpreter.Interpreter(model_path=str(path), num_threads=threads, **settings)
            opened.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: LiteRT cannot open it: {first_line(error)}") from None
    return opened


def _plain(path: Path, threads: int) -> _Opened:
    from ai_edge_litert.interpreter import OpResolverType

    return _Opened(path, threads, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)


def _tensors(path: Path, images: Images) -> Tensors:
    from ai_edge_litert.interpreter import OpResolverType

    # What a delegate computes inside itself it does not show.
    interpreter = _interpreter(
        path,
        1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    entrance = interpreter.get_input_details()[0]
    scale, zero = entrance["quantization"]
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    # Steps whose tensor only a conversion makes, or that are weights, are none of the net's.
    steps = [
        (int(index), step["op_name"])
        for step in interpreter._get_ops_details()
        for index in step["outputs"]
        if step["op_name"] not in ("QUANTIZE", "DEQUANTIZE", "DELEGATE")
    ]
    collected: dict[int, list[NDArray[np.float32]]] = {index: [] for index, _ in steps}
    for image in images:
        values = image[None] if entrance["dtype"] != np.float32 else image[None].astype(np.float32)
        interpreter.set_tensor(entrance["index"], as_taken(values, entrance["dtype"], scale, zero))
        interpreter.invoke()
        for index, into in collected.items():
            into.append(_dequantised(interpreter.get_tensor(index), details[index]))
    return {details[index]["name"]: Tensor(kind, np.concatenate(collected[index])) for index, kind in steps}


def _dequantised(values: NDArray[np.number], detail: TensorDetail) -> NDArray[np.float32]:
    scale, zero = detail["quantization"]
    if not scale:
        return np.array(values, np.float32)
    found: NDArray[np.float32] = (values.astype(np.float32) - zero) * np.float32(scale)
    return found


ENGINE = Engine(
    suffixes=(".tflite",),
    library="ai-edge-litert",
    extra="litert",
    open=lambda path, threads: _Opened(path, threads),
    plain=_plain,
    tensors=_tensors,
)
