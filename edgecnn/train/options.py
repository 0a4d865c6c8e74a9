"""What to train, and how: all that a run's outcome depends on but the images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgecnn.artifact import Frozen
from edgecnn.checkpoint import RecipeName


class TrainOptions(Frozen):
    """What to train and how. Everything here is recorded in the checkpoint."""

    model: str
    """As `edgecnn.models.build` takes it."""
    weights: str | None = None
    """hub, embedded, none, or a file; None: embedded where there are such, else hub."""
    recipe: Literal["auto"] | RecipeName = "auto"
    size: int | None = Field(default=None, ge=16, le=2048)
    """Input height and width in pixels; None: what the weights were trained with."""
    fit: Literal["stretch", "center-crop"] = "stretch"
    epochs: int | None = Field(default=None, ge=1)
    """None: the recipe's."""
    batch: int = Field(default=32, ge=2)
    lr: float | None = Field(default=None, gt=0)
    """Peak rate of the head; None: the recipe's."""
    weight_decay: float = Field(default=0.02, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    warmup: float = Field(default=1.0, ge=0)
    """Epochs over which the rate rises from 0."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation result after which training stops; None: a third of all, at least 8."""
    class_weights: Literal["sqrt", "balanced", "none"] = "sqrt"
    """Weight of a class's images in the loss: 1/√frequency, 1/frequency, or 1."""
    augment: Literal["surface", "none"] = "surface"
    """surface: flips both ways, ±10° rotation, ±10 % scale, ±5 % shift, ±15 % brightness and contrast."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Before the head; None: as the library builds the network."""
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    """auto (cuda where there is one, else cpu), or a name that torch knows."""
