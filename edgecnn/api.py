"""The verbs as functions: what `import edgecnn` offers beside `load`.

They do what the command line does and refuse what it refuses, by UserError, before anything is written. They print
nothing: `progress` is called with the lines that the command line says meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgecnn.errors import UserError
from edgecnn.installed import need_training
from edgecnn.profiles import Budget, Target, load_target, parse_budget
from edgecnn.progress import Progress

if TYPE_CHECKING:
    from edgecnn.artifact import Bundle
    from edgecnn.bench.rows import Row
    from edgecnn.checkpoint import Checkpoint
    from edgecnn.verify import Verified

AnyPath: TypeAlias = "str | os.PathLike[str]"


def fine_tune(
    data: AnyPath,
    *,
    out: AnyPath,
    model: str = "mobilenetv2_100",
    weights: AnyPath | None = None,
    recipe: str = "auto",
    minutes: float = 5.0,
    size: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    good: str | None = None,
    group: str | None = None,
    looks: bool = True,
    skip_unreadable: bool = False,
    min_per_class: int = 5,
    cache: AnyPath | None = None,
    restart: bool = False,
    progress: Progress | None = None,
    **more: object,
) -> Checkpoint:
    """Fine-tune a network on a folder of labelled images, `<class>/*.jpg`; write the run folder `out`.

    As `edgecnn finetune`, whose help explains each option; `more` are its others (batch, lr, augment, ema, device, …).
    `looks`: whether images that look alike are of one part where `group` does not name the parts (`--no-group` is
    False). The same call after a kill goes on; a finished run returns at once. Why its network may be wrong is in the
    checkpoint's `doubts`, what of the weights did not fit in its `leftovers`.

    Raises UserError: the images, the network or an option are not usable, `out` holds something else; MissingExtra
    without edgecnn[train].

    >>> checkpoint = edgecnn.fine_tune("parts", out="trained", model="edgecnn_mobilenetv2_035", minutes=1)
    >>> checkpoint.classes
    ('dark', 'light', 'striped')
    """
    need_training()
    from edgecnn import outputs
    from edgecnn.data import load_folder
    from edgecnn.documents import checked
    from edgecnn.models import refuse_no_network
    from edgecnn.train import TrainOptions
    from edgecnn.train import fine_tune as train
    from edgecnn.train.folder import refuse_other_content
    from edgecnn.train.progress import Lines

    folder, images, say = Path(out), Path(data), progress or _silent
    given = {"model": model, "weights": _text(weights), "recipe": recipe, "minutes": float(minutes), "size": size}
    options = checked(TrainOptions, {**given, "epochs": epochs, "seed": seed, **more}, "options")
    refuse_no_network(options.model, options.weights)
    refuse_other_content(folder)
    with outputs.folders(folder, apart_from=images):
        say(f"reading {images}")
        dataset = load_folder(
            images,
            seed=seed,
            good=good,
            skip_unreadable=skip_unreadable,
            min_per_class=min_per_class,
            group=group,
            looks=looks,
        )
        for line in dataset.lines:
            say(line)
        return train(
            dataset, options, folder, Lines(say), restart=restart, cache=None if cache is None else Path(cache)
        )


def export(
    run: AnyPath,
    *,
    out: AnyPath,
    target: AnyPath | Target = "desktop-cpu",
    data: AnyPath | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Convert, quantise and verify every variant of a target, from a run folder; write the bundle folder `out`.

    As `edgecnn export`. `target`: the name of one that comes along, a .toml file, or a `Target`. `data`: the images,
    where they have moved since the run. The bundle's `left_out` has what was refused, with the reason. Networks that
    others trained are taken in by the command line: `edgecnn export model.onnx --data …`.

    Raises UserError: no run folder, its images are gone or changed, no variant is left; MissingExtra without
    edgecnn[train] or what a format needs.

    >>> bundle = edgecnn.export("trained", out="bundle", target="desktop-cpu")
    >>> [artifact.variant for artifact in bundle.artifacts]
    ['onnx-fp32', 'onnx-int8']
    """
    need_training()
    from edgecnn import outputs
    from edgecnn.adopt.sources import refuse_foreign_folder
    from edgecnn.export import export as make
    from edgecnn.export import refuse_other_content
    from edgecnn.wanted import unfit

    source, folder = Path(run), Path(out)
    images = None if data is None else Path(data)
    profile = target if isinstance(target, Target) else load_target(os.fspath(target), unfit)
    refuse_other_content(folder)
    if not source.is_dir():
        there = "is a file" if source.exists() else "is not there"
        raise UserError(
            f"{source}: {there}: give the run folder that fine_tune wrote; a file of a network that others trained "
            "takes `edgecnn export FILE --data …`"
        )
    refuse_foreign_folder(source)
    with outputs.folders(folder, apart_from=images):
        return make(source, profile, folder, images, progress or _silent)


def verify(
    bundle: AnyPath, data: AnyPath, *, variants: Sequence[str] = (), progress: Progress | None = None
) -> list[Verified]:
    """Run every variant of a bundle again, from the encoded test images, and judge it as `export` did.

    As `edgecnn verify`. The test images are found in the folder `data` by content. `variants`: only these. A row says
    whether its variant passed; None where it could not be run here, with the reason.

    Raises UserError: the bundle is damaged, a test image is missing.

    >>> rows = edgecnn.verify("bundle", "parts", variants=["onnx-fp32"])
    >>> [(row.variant, row.passed) for row in rows]
    [('onnx-fp32', True)]
    """
    from edgecnn.verify import verify as check

    return check(Path(bundle), Path(data), variants, progress)


def bench(
    bundle: AnyPath,
    *,
    budget: str | Budget | None = None,
    variants: Sequence[str] | None = None,
    images: AnyPath | None = None,
    threads: int | None = None,
    samples: int | None = None,
    out: AnyPath | None = None,
    null: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure every variant from encoded bytes to decision, one image at a time, against a latency budget.

    As `edgecnn bench`. `budget`: such as "30ms@p99"; the target's, if not given, as `threads`. `variants`: only these.
    `samples`: of each, 2,300 or more if not given; fewer than the verdict needs make it INCONCLUSIVE. `images`: a
    folder, instead of the bundle's golden images. `null`: a row more, of what the harness itself costs. Raw runs go to
    `out`, a folder or .jsonl file, by default below runs/bench/. A row is a `Summary` with its `verdict`, or `Skipped`
    with the reason; the one verdict that the exit code follows: `from edgecnn.bench import overall`.

    Raises UserError: the bundle is damaged, no such variant, no usable images, no place for the raw runs.

    >>> rows = edgecnn.bench("bundle", variants=["onnx-fp32"], samples=50, out="runs.jsonl")
    >>> [(row.variant, row.verdict.outcome) for row in rows]
    [('onnx-fp32', 'INCONCLUSIVE')]
    """
    from edgecnn.bench import bench as measure

    return measure(
        Path(bundle),
        variants=variants,
        images=None if images is None else Path(images),
        budget=parse_budget(budget) if isinstance(budget, str) else budget,
        threads=threads,
        samples=samples,
        out=None if out is None else Path(out),
        null=null,
        progress=progress,
    )


def _text(path: AnyPath | None) -> str | None:
    return None if path is None else os.fspath(path)


def _silent(line: str) -> None:
    """Nobody asked."""
