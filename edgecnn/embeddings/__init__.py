"""Backbone features of a folder of images, and what they show before anything is trained."""

from __future__ import annotations

import time
from pathlib import Path

from edgecnn.documents import Frozen
from edgecnn.embeddings.baselines import Baseline, baselines, need_sklearn
from edgecnn.embeddings.features import Embedded, Shown, Source, images_of_run, read_images, shown_features
from edgecnn.embeddings.files import ENDINGS, load_features, need_pyarrow, refuse_other_content, save_features
from edgecnn.embeddings.page import need_jinja2, write_page
from edgecnn.embeddings.suspects import Duplicate, Mislabelled, duplicates, mislabelled
from edgecnn.errors import not_one_of
from edgecnn.train.progress import ProgressBar

__all__ = [
    "ENDINGS",
    "Baseline",
    "Duplicate",
    "Embedded",
    "Findings",
    "Mislabelled",
    "Shown",
    "Source",
    "embed",
    "images_of_run",
    "load_features",
    "not_one_of",
    "read_images",
    "refuse_other_content",
]


class Findings(Frozen):
    """What `edgecnn embed` found."""

    model: str
    weights: str
    images: int
    dimensions: int
    seconds: float
    """Of preparing the images and running the backbone."""
    computed: int
    """Images that were run; the rest came from the cache."""
    baselines: tuple[Baseline, ...]
    """Empty where there are no labels, or too few."""
    duplicates: tuple[Duplicate, ...]
    mislabelled: tuple[Mislabelled, ...]
    left_out: tuple[str, ...]
    """Images without features, each with the reason, such as the same image under two labels."""
    out: str
    page: str | None


def embed(
    images: Shown,
    source: Source,
    out: Path,
    progress: ProgressBar,
    *,
    cache: Path | None = None,
    similar: float = 0.9,
    page: Path | None = None,
) -> Findings:
    """Write each image's features to `out` (.npz or .parquet), judge and list what they show.

    `similar`: least cosine of centred features of images that are then compared pixel by pixel. `cache`: a folder that
    keeps every image's features by content, so that only what changed is computed. Raises UserError: an unknown ending,
    an unreadable image; MissingExtra without scikit-learn, or pyarrow for .parquet.
    """
    refuse_other_content(out)
    _need(images, out, page)
    began = time.monotonic()
    embedded, computed = shown_features(images, source, cache, progress)
    seconds = time.monotonic() - began
    save_features(out, embedded)
    progress.start(3, "looking at the features")
    judged = baselines(embedded)
    progress.advance()
    twins = duplicates(embedded, similar)
    progress.advance()
    wrong = mislabelled(embedded)
    progress.advance()
    if page:
        write_page(page, embedded, twins, wrong)
    return Findings(
        model=source.model,
        weights=source.weights,
        images=len(images.items),
        dimensions=embedded.features.shape[1],
        seconds=round(seconds, 2),
        computed=computed,
        baselines=judged,
        duplicates=twins,
        mislabelled=wrong,
        left_out=tuple(f"{problem.name}: {problem.reason}" for problem in images.left_out),
        out=str(out),
        page=str(page) if page else None,
    )


def _need(images: Shown, out: Path, page: Path | None) -> None:
    """Raises MissingExtra before anything long begins."""
    if images.classes:
        need_sklearn()
    if out.suffix.lower() == ".parquet":
        need_pyarrow()
    if page:
        need_jinja2()
