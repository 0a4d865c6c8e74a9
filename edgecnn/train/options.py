"""What to train, and how: all that a run's outcome depends on but the images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgecnn.checkpoint import RecipeChoice
from edgecnn.documents import Frozen


class TrainOptions(Frozen):
    """What to train and how. Everything here is recorded in the checkpoint."""

    model: str
    """As `edgecnn.models.build` takes it."""
    weights: str | None = None
    """hub, embedded, none, or a file; None: embedded where there are such, else hub."""
    weights_key: str | None = None
    """Which weights of a file with several; None: the averaged ones."""
    recipe: RecipeChoice = "auto"
    minutes: float = Field(default=0.0, ge=0)
    """Of comparing recipes on the data itself, for `auto`. 0: by a stated rule."""
    size: int | None = Field(default=None, ge=16, le=2048)
    """Input height and width in pixels; None: what the weights were trained with."""
    fit: Literal["stretch", "center-crop"] = "stretch"
    epochs: int | None = Field(default=None, ge=1)
    """None: the recipe's."""
    batch: int = Field(default=32, ge=2)
    """Images in a step, over all processes."""
    lr: float | None = Field(default=None, gt=0)
    """Peak rate of the head; None: the recipe's."""
    decay: float | None = Field(default=None, gt=0, le=1)
    """Rate of a stage (or layer) relative to the one after it; None: the recipe's."""
    decay_by: Literal["stage", "layer"] = "stage"
    schedule: Literal["cosine", "1cycle"] = "cosine"
    """cosine after a linear warm-up; or 1cycle (Smith and Topin, 2018, arXiv:1708.07120): up over 30 %, then down to
    nothing, the first momentum falling from 0.95 to 0.85 and back."""
    weight_decay: float = Field(default=0.02, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    warmup: float = Field(default=1.0, ge=0)
    """Epochs over which the rate rises from 0."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation result after which training stops; None: a third of all, at least 8."""
    class_weights: Literal["sqrt", "balanced", "none"] = "sqrt"
    """Weight of a class's images in the loss: 1/√frequency, 1/frequency, or 1."""
    augment: Literal["surface", "natural", "none"] = "surface"
    """surface: flips both ways, ±10° rotation, ±10 % scale, ±5 % shift, ±15 % brightness and contrast.
    natural: random crop of 64 to 100 % of each side, horizontal flip, ±25 % brightness, contrast, saturation."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of MixUp (Zhang et al., 2018, arXiv:1710.09412); 0: off."""
    cutmix: float = Field(default=0.0, ge=0)
    """Alpha of CutMix (Yun et al., 2019, arXiv:1905.04899); 0: off. With both, each batch takes one of them."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Share of the running average of the weights that a step keeps; the average is scored and saved. None: off."""
    batchnorm: Literal["train", "frozen"] = "train"
    """Whether the BatchNorm of trained stages learns the new images' statistics. Frozen stages' never does."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Before the head; None: as the library builds the network."""
    views: int | None = Field(default=None, ge=0)
    """Augmented variants of each image for which the frozen part is computed once; None: 6 or, for few images, as many
    as make 2,000 pictures, for `head` one without augmentation; 0: nothing is computed once."""
    disk_gib: float = Field(default=4.0, gt=0)
    """Most that these may take on disk; fewer views where they would take more."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: mixed precision, worth it on processors that compute in it (`edgecnn plan` measures that)."""
    tensorboard: bool = False
    """Whether the run folder gets curves for TensorBoard."""
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    """auto (cuda where there is one, else cpu), or a name that torch knows."""
