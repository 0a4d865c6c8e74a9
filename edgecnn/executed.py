"""What an engine really ran: each layer's arithmetic, read from the engine, never from what was intended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, computed_field, field_validator

from edgecnn.documents import Frozen


class ExecutedLayer(Frozen):
    """A convolution, linear layer or matrix product as the engine ran it."""

    name: str
    kind: str
    """The engine's own word for its kernel."""
    precision: str
    """Of the arithmetic: int8, fp16, bf16, fp32, or the engine's own word for another."""
    macs: int
    """Multiply-accumulates for one image; 0: not known."""


class Executed(Frozen):
    """A session's account of one image. What an engine does not tell is None or empty."""

    # Documents carry what is derived for their readers; it is not read back.
    model_config = ConfigDict(extra="ignore")

    layers: tuple[ExecutedLayer, ...]
    """In the order of execution. Empty: the engine does not tell."""
    providers: tuple[str, ...] = ()
    """What its kernels ran on, each once."""
    remarks: tuple[str, ...] = ()
    """What nobody asked for: a fallback to another provider, int8 run as fp16, a graph that a delegate did not take."""
    fell_back: tuple[str, ...] = ()
    """Layers that the file holds in int8 and that ran in another precision."""
    kernels: Mapping[str, int] = {}
    """Every kernel by its kind, with how many ran."""
    quantize_ops: int | None = None
    """Conversions between int8 and float."""
    quantize_time_share: float | None = None
    """Of the time of all kernels, that of these conversions."""
    requantized_layers: int | None = None
    """int8 layers that hand int8 on to the next one."""
    partitions: int | None = None
    """Parts of the graph that the delegate took."""
    outside_delegate: Mapping[str, int] = {}
    """Kernels by kind that ran outside of these parts."""
    fp16_storage: bool | None = None
    """Whether values between layers are kept in fp16."""
    precision_hint: str | None = None
    """The engine's own setting of its arithmetic."""
    source: Literal["engine", "compiler"] = "engine"
    """compiler: the engine was built without an account of what it ran; this is what was intended."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def int8_layers(self) -> int:
        return sum(layer.precision == "int8" for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def float_layers(self) -> int:
        """Layers in another precision than int8."""
        return len(self.layers) - self.int8_layers

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mac_shares(self) -> dict[str, float]:
        """Precision to its share of the multiply-accumulates, which sum to one; empty where these are not known."""
        macs: Counter[str] = Counter()
        for layer in self.layers:
            macs[layer.precision] += layer.macs
        total = sum(macs.values())
        return {precision: count / total for precision, count in sorted(macs.items())} if total else {}

    @property
    def int8_share(self) -> float | None:
        """Of the multiply-accumulates; None where these are not known."""
        shares = self.mac_shares
        return shares.get("int8", 0.0) if shares else None

    @field_validator("providers")
    @classmethod
    def _each_once(cls, providers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(providers)))
