"""The recipes of fine-tuning, and the one rule that recommends one. Light: the command line's help is made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgecnn.errors import not_one_of

AUTO = "auto"
"""What stands for the recipe that the images speak for, or that `recommend` does."""


@dataclass(frozen=True)
class Known:
    """A recipe: what is frozen, at which rate the rest is trained, when it thaws."""

    name: str
    does: str
    """In a few words, for help and tables."""
    thawed: float
    """Share of the backbone's stages, counted from the head, that is trained beside the head."""
    lr: float
    """Peak learning rate of the head (AdamW)."""
    stem_lr: float
    """Learning rate at the stem relative to the head's; it falls geometrically over the stages between them."""
    epochs: int
    thaw_by: float = 0.0
    """Share of the epochs over which `thawed` is reached, a stage at a time from the head. 0: from the first epoch."""
    letter: str = ""
    """Under which it is taught. `edgecnn plan` compares those that have one."""
    tried_for: float | None = None
    """Share of the time that is left when its turn comes which `auto` may spend on trying it; None: not tried."""
    embedded: tuple[float, float] | None = None
    """(lr, stem_lr) for an embedded backbone: what it was trained on is narrow, so its stem has more to learn."""

    @property
    def lettered(self) -> str:
        """head (A), …"""
        return f"{self.name} ({self.letter})" if self.letter else self.name


RECIPES: tuple[Known, ...] = (
    Known("head", "a new head on frozen features",
          thawed=0.0, lr=5e-3, stem_lr=1.0, epochs=60, letter="A", tried_for=0.5),
    Known("last", "the last sixth of the backbone too",
          thawed=0.17, lr=1e-3, stem_lr=0.1, epochs=25, letter="B", tried_for=0.5),
    Known("all", "every layer, slower towards the stem",
          thawed=1.0, lr=1e-3, stem_lr=0.1, epochs=15, letter="C", tried_for=0.55, embedded=(3e-3, 0.5)),
    Known("progressive", "every layer, thawed from the head down",
          thawed=1.0, lr=1e-3, stem_lr=0.1, epochs=15, thaw_by=0.5, tried_for=0.75),
    Known("scratch", "every layer from random weights",
          thawed=1.0, lr=3e-3, stem_lr=1.0, epochs=25, tried_for=1.0),
    Known("none", "weights and head as they are",
          thawed=0.0, lr=0.0, stem_lr=1.0, epochs=0),
)  # fmt: skip
"""In the order in which `auto` tries them: cheap ones first. A new recipe is one row. Discriminative rates and thawing
from the head down: Howard and Ruder, 2018, arXiv:1801.06146. `scratch` takes random weights whatever were given: it is
what transfer has to beat."""


@dataclass(frozen=True)
class StartingPoint:
    """What the rule asks of the weights that training starts from."""

    random: bool = False
    embedded: bool = False
    """A backbone that ships with edgecnn: small, and trained on drawn surfaces alone."""
    features_only: bool = False
    """A family whose features are used as they are (DINOv2, CLIP)."""


@dataclass(frozen=True)
class Recommendation:
    """A recipe, and what speaks for it."""

    recipe: str
    rule: str
    """Its name."""
    text: str
    source: str | None = None


@dataclass(frozen=True)
class Size:
    """A row of the size rule."""

    below: float
    """Training images."""
    recipe: str
    why: str
    source: str


SIZES: tuple[Size, ...] = (
    Size(5_000, "last", "the best mean recall over three data sets at every size measured from 48 to 1,169 training "
         "images, near and far domains alike", "benchmarks/README.md, Recipes of transfer learning"),
    Size(math.inf, "all", "enough images to train every layer, the stem at a fraction of the head's rate",
         "Kornblith et al., 2019, arXiv:1805.08974"),
)  # fmt: skip
"""The first row that has more than the training images holds. The domain is not asked: what was measured does not
differ by it."""

EMBEDDED_ENOUGH = 200
"""Training images from which every layer of an embedded backbone is trained."""


def names() -> list[str]:
    """Every recipe."""
    return [known.name for known in RECIPES]


def named(word: str) -> Known:
    """The recipe of that name or letter. UserError where there is none."""
    for known in RECIPES:
        if word in (known.name, known.letter) and word:
            return known
    raise not_one_of("recipe", word, [AUTO, *(known.lettered for known in RECIPES)])


def choice(word: str) -> str:
    """The recipe's name for a name or letter; `auto` stays. UserError where there is none."""
    return AUTO if word == AUTO else named(word).name


def help_text() -> str:
    """What `--recipe` takes."""
    return f"{AUTO}; " + "; ".join(f"{known.lettered}: {known.does}" for known in RECIPES) + "."


def recommend(train_images: int, start: StartingPoint) -> Recommendation:
    """The recipe by the stated rule: the one of `plan`, of `finetune --minutes 0`, and where time was too short.

    Random weights → scratch. Features that are used as they are → head. An embedded backbone with enough images → all
    (small enough to be cheap, and what it was trained on is narrow). Else by the number of training images: `SIZES`.
    """
    if start.random:
        text = "the weights are random: nothing is worth freezing; give pretrained ones with --weights FILE or hub"
        return Recommendation("scratch", "no weights", text)
    if start.features_only:
        text = "this family's features are used as they are: few images cannot better them"
        return Recommendation("head", "features", text)
    images = f"{train_images:,} training images"
    if start.embedded and train_images >= EMBEDDED_ENOUGH:
        text = (
            f"{images} (≥ {EMBEDDED_ENOUGH}) and a backbone so small and narrowly trained that all of it is cheap to "
            f"train and has much to learn: {named('all').lettered}"
        )
        return Recommendation("all", "embedded", text)
    row = next(row for row in SIZES if train_images < row.below)
    return Recommendation(
        row.recipe, "size", f"{images} ({_range(row)}): {named(row.recipe).lettered}; {row.why}", row.source
    )


def _range(row: Size) -> str:
    position = SIZES.index(row)
    at_least = int(SIZES[position - 1].below) if position else 0
    if row.below == math.inf:
        return f"≥ {at_least:,}"
    return f"{at_least:,} to {row.below - 1:,}" if position else f"< {row.below:,}"
