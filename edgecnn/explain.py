"""What a building block costs beside the plain convolution, as `edgecnn explain block` prints it. Needs no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edgecnn import block_cost
from edgecnn.block_cost import At, Layer, inception_widths, macs, path, plain, weights
from edgecnn.documents import Json
from edgecnn.errors import UserError, not_one_of

if TYPE_CHECKING:
    from edgecnn.blocks.measured import Measured

CAUTION = (
    "Fewer multiply-accumulates are not always less time: benchmarks/README.md has both timed side by side "
    "in every engine (benchmarks/depthwise.py)."
)
COUNTED = "Counted: weights of convolutions, without biases and normalisation; multiply-accumulates of one image."


@dataclass(frozen=True)
class Block:
    """A building block that can be explained."""

    summary: str
    formula: str
    """Of its weights. M, N: input and output channels."""
    options: tuple[str, ...]
    """What may be given besides `inputs`, in the words of `edgecnn.block_cost` and `edgecnn.blocks`."""
    layers: Callable[..., list[Layer]]
    """(inputs, at, **options)."""


@dataclass(frozen=True)
class Count:
    """Of a block or of a part of it."""

    weights: int
    macs: int

    @classmethod
    def of(cls, layers: list[Layer]) -> Count:
        return cls(weights(layers), macs(layers))


@dataclass(frozen=True)
class Explained:
    """A block with its numbers."""

    name: str
    block: Block
    given: Mapping[str, int]
    """The options, and height and width of the input."""
    layers: tuple[Layer, ...]
    total: Count
    without_projection: Count | None
    """Where the shortcut has one."""
    plain: Count
    """Of one 3×3 convolution with the same inputs, outputs and stride."""
    measured: Measured | None
    """Of the block as built; None where torch is not installed."""

    def to_json(self) -> dict[str, Json]:
        """For machines. A `plain_…_ratio` is how many times as much the plain convolution is, to four digits."""
        return {
            "block": self.name,
            "formula": self.block.formula,
            "given": dict(self.given),
            "layers": [_layer_json(layer) for layer in self.layers],
            "total": _compared(self.total, self.plain),
            "without_projection": None
            if self.without_projection is None
            else _compared(self.without_projection, self.plain),
            "plain": asdict(self.plain),
            "measured": None if self.measured is None else asdict(self.measured),
            "counted": COUNTED,
            "caution": CAUTION,
        }


def explain_block(name: str, inputs: int, height: int, width: int, options: Mapping[str, int]) -> Explained:
    """The numbers of a block. UserError: unknown name, an option that it does not have, widths that do not fit."""
    if name not in BLOCKS:
        raise not_one_of("block", name, BLOCKS)
    block, at = BLOCKS[name], At(height, width)
    given = _checked(name, block, inputs, options)
    layers = block.layers(inputs=inputs, at=at, **given)
    projected = len(path(layers)) < len(layers)
    return Explained(
        name=name,
        block=block,
        given={"inputs": inputs, **given, "height": height, "width": width},
        layers=tuple(layers),
        total=Count.of(layers),
        without_projection=Count.of(path(layers)) if projected else None,
        plain=Count.of(plain(inputs, given.get("outputs", inputs), at, given.get("stride", 1))),
        measured=_measured(name, inputs, at, given),
    )


def _checked(name: str, block: Block, inputs: int, options: Mapping[str, int]) -> dict[str, int]:
    for option in options:
        if option not in block.options:
            raise UserError(
                f"block {name}: {_flag(option)} does not apply; it takes "
                f"{', '.join(map(_flag, ('inputs', *block.options)))}: leave it out"
            )
    given = dict(options)
    if "outputs" in block.options:
        given.setdefault("outputs", inputs)
    if name == "inception" and given["outputs"] % 16:
        raise UserError(f"block inception: --out {given['outputs']} is no multiple of 16: its branches share it so")
    return given


def _flag(option: str) -> str:
    return {"inputs": "--in", "outputs": "--out"}.get(option, f"--{option}")


def _measured(name: str, inputs: int, at: At, given: Mapping[str, int]) -> Measured | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    from edgecnn import blocks
    from edgecnn.blocks.measured import measure

    with torch.device("meta"):  # shapes without memory
        return measure(blocks.BLOCKS[name](inputs=inputs, **given), inputs, *at)


def _layer_json(layer: Layer) -> dict[str, Json]:
    return {**asdict(layer), "out": layer.out._asdict(), "weights": layer.weights, "macs": layer.macs}


def _compared(count: Count, reference: Count) -> dict[str, float]:
    return {
        **asdict(count),
        "plain_weights_ratio": round(reference.weights / count.weights, 4),
        "plain_macs_ratio": round(reference.macs / count.macs, 4),
    }


def _inception(inputs: int, outputs: int, at: At) -> list[Layer]:
    return block_cost.inception(inputs, inception_widths(outputs), at)


def _squeeze_excite(inputs: int, at: At, reduction: int = 16) -> list[Layer]:
    del at  # it works on means
    return block_cost.squeeze_excite(inputs, reduction)


BLOCKS: dict[str, Block] = {
    "plain": Block("the 3×3 convolution that the others are compared with", "9·M·N", ("outputs", "stride"), plain),
    "basic": Block(
        "residual block of two 3×3 convolutions",
        "9·M·N + 9·N² (+ M·N where the shortcut is a projection)",
        ("outputs", "stride"),
        block_cost.basic,
    ),
    "bottleneck": Block(
        "residual block: 1×1 down, 3×3, 1×1 up",
        "M·B + 9·B² + B·N (+ M·N where the shortcut is a projection); B = --mid, else N/4",
        ("outputs", "stride", "mid"),
        block_cost.bottleneck,
    ),
    "inception": Block(
        "1×1, 3×3, 5×5 and pooling side by side, with 1×1 reductions, in the shares of GoogLeNet's 3a",
        "M·(N/4 + 3N/8 + N/16 + N/8) + 9·(3N/8)·(N/2) + 25·(N/16)·(N/8)",
        ("outputs",),
        _inception,
    ),
    "depthwise-separable": Block(
        "MobileNetV1: 3×3 on each channel by itself, then 1×1",
        "9·M + M·N, which is 1/N + 1/9 of the plain convolution",
        ("outputs", "stride"),
        block_cost.depthwise_separable,
    ),
    "inverted-residual": Block(
        "MobileNetV2: 1×1 up, 3×3 depthwise, linear 1×1 down",
        "M·E + 9·E + E·N; E = --expand × M, by default 6·M",
        ("outputs", "stride", "expand"),
        block_cost.inverted_residual,
    ),
    "squeeze-excite": Block(
        "weighs the channels by the mean of their maps; comes on top of another block",
        "2·M·S; S = M / --reduction, by default M/16",
        ("reduction",),
        _squeeze_excite,
    ),
}
"""By name: `edgecnn.blocks.BLOCKS` builds the same ones."""
