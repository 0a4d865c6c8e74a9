"""ExecuTorch on the CPU, through XNNPACK."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np

from edgecnn.artifact import Precision
from edgecnn.errors import UserError, first_line
from edgecnn.executed import Executed, ExecutedLayer
from edgecnn.imaging import Images
from edgecnn.modelfiles.executorch import Account, CompiledLayer
from edgecnn.require import unasked
from edgecnn.runtimes import Logits, Runtime, Session
from edgecnn.runtimes.pytorch import quiet

if TYPE_CHECKING:
    from torch import Tensor

_INT8 = ("QS8", "QD8", "QU8", "QC8")
_LAYERS = ("Convolution", "Fully Connected", "Batch Matrix Multiply")


class _Method(Protocol):
    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]: ...


class _Program(Protocol):
    def load_method(self, name: str) -> _Method: ...


class _Event(TypedDict, total=False):
    name: str
    delegate_debug_id_str: str
    """The kernel, where a delegate ran it."""


class _Entry(TypedDict, total=False):
    profile_event: _Event


class _Run(TypedDict, total=False):
    events: list[_Entry]


class _Trace(TypedDict):
    """As ExecuTorch's schema has it."""

    run_data: list[_Run]


class _Session(Session):
    """ExecuTorch's programs are for one image: several are run one after the other."""

    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        self._path, self._precision = path, precision
        library = _library()
        try:
            with quiet():
                library._unsafe_reset_threadpool(threads)  # for the whole process: an engine has it to itself
                self._threads = library._threadpool_get_thread_count()
                self._program: _Program = library._load_program(str(path))
                self._method: _Method = self._program.load_method("forward")
        except RuntimeError as error:
            raise UserError(f"{path}: ExecuTorch cannot open it: {first_line(error)}") from None
        self._asked = threads

    def run(self, images: Images) -> Logits:
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(np.require(images, requirements=("C", "W")))
            return np.concatenate([self._method((image[None],))[0].numpy() for image in given])

    def executed(self) -> Executed:
        """XNNPACK's kernels for one image, from ExecuTorch's own trace; names and sizes of layers from the compiler.

        Where the engine was built without a trace, all is the compiler's account, and `source` and a remark say so.
        """
        account: Account = json.loads(self._path.with_suffix(".json").read_bytes())
        remarks = [] if self._threads == self._asked else [f"{self._asked} threads asked for, {self._threads} used"]
        events = _trace(self._path, account["height"], account["width"])
        if events is None:
            remarks.append("this ExecuTorch was built without its trace: what the compiler intended is reported")
            return Executed(
                layers=tuple(
                    ExecutedLayer(name=one["name"], kind="XNNPACK", precision=one["precision"], macs=one["macs"])
                    for one in account["layers"]
                ),
                providers=("XnnpackBackend",),
                remarks=tuple(remarks),
                partitions=account["partitions"],
                outside_delegate=account["portable_operations"],
                source="compiler",
            )
        kernels = [kernel.partition(" #")[0] for event in events if (kernel := event.get("delegate_debug_id_str"))]
        names = [event["name"] for event in events if event.get("name") and not event.get("delegate_debug_id_str")]
        portable = Counter(name.removeprefix("native_call_") for name in names if name.startswith("native_call_"))
        delegated = names.count("DELEGATE_CALL")
        layers = _layers([kernel for kernel in kernels if kernel.startswith(_LAYERS)], account["layers"], remarks)
        held = {layer["name"] for layer in account["layers"] if layer["precision"] == "int8"}
        remarks += unasked(self._precision, layers, held)
        return Executed(
            layers=tuple(layers),
            providers=("XnnpackBackend",) * (delegated > 0) + ("portable",) * (len(portable) > 0),
            remarks=tuple(remarks),
            quantize_ops=sum(kernel.startswith("Convert") for kernel in kernels),
            partitions=delegated,
            outside_delegate=dict(sorted(portable.items())),
        )

    def close(self) -> None:
        del self._method, self._program


def _library() -> ModuleType:
    """ExecuTorch's extension module itself.

    Its public wrapper, executorch.runtime, imports the whole compiler before it, for seconds.
    """
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        import torch  # noqa: F401  its libraries must be loaded first
        from executorch.extension.pybindings import _C

        module: ModuleType = _C
    return module


def _layers(ran: Sequence[str], compiled: Sequence[CompiledLayer], remarks: list[str]) -> list[ExecutedLayer]:
    """The kernels of convolutions and linear layers, both lists in the order of execution."""
    if len(ran) != len(compiled):
        remarks.append(f"{len(compiled)} layers were compiled and XNNPACK ran {len(ran)}: sizes are unknown")
        return [ExecutedLayer(name=kernel, kind=kernel, precision=_precision(kernel), macs=0) for kernel in ran]
    return [
        ExecutedLayer(name=layer["name"], kind=kernel, precision=_precision(kernel), macs=layer["macs"])
        for layer, kernel in zip(compiled, ran, strict=True)
    ]


def _precision(kernel: str) -> str:
    """From XNNPACK's name of a kernel, such as "Fully Connected (NC, QS8, QC8W) GEMM"."""
    if any(word in kernel for word in _INT8):
        return "int8"
    return "fp16" if "F16" in kernel else "fp32"


def _trace(path: Path, height: int, width: int) -> list[_Event] | None:
    """What ExecuTorch records while it runs one image, in order; None where it was built without that."""
    import torch

    with tempfile.TemporaryDirectory() as folder, quiet():
        dump = Path(folder) / "trace.etdp"
        program = _library()._load_program(str(path), enable_etdump=True)
        if not program.has_etdump():
            return None
        program.load_method("forward")((torch.zeros((1, height, width, 3), dtype=torch.uint8),))
        program.write_etdump_result_to_file(str(dump), str(Path(folder) / "debug.bin"))
        trace = _as_json(dump)
    events = (event.get("profile_event") for run in trace["run_data"] for event in run.get("events", ()))
    return [event for event in events if event]


def _as_json(dump: Path) -> _Trace:
    """A trace as JSON, by the flatbuffers compiler and the schema that ExecuTorch carries."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    home = Path(next(iter(spec.submodule_search_locations or ())))
    schema = home / "devtools" / "etdump" / "etdump_schema_flatcc.fbs"
    flatc = home / "data" / "bin" / "flatc"
    options = ["--size-prefixed", "--json", "--strict-json", "--defaults-json", "-o", str(dump.parent)]
    subprocess.run([str(flatc), *options, str(schema), "--", str(dump)], check=True, capture_output=True)
    trace: _Trace = json.loads(dump.with_suffix(".json").read_bytes())
    return trace


RUNTIME = Runtime(runs=("executorch",), libraries=("executorch", "torch"), extra="executorch", open=_Session)
