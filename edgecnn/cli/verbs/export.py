"""`edgecnn export`: a checkpoint, or somebody else's network, to a verified bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecnn.cli.options import (
    Good,
    Group,
    Json,
    MinPerClass,
    NoGroup,
    Only,
    Quick,
    Require,
    Seed,
    Skip,
    TargetName,
    Verbose,
    WeightsKey,
)
from edgecnn.cli.reading import read_labelled
from edgecnn.cli.verbs import Verb
from edgecnn.errors import UserError
from edgecnn.installed import need

_EPILOG = (
    "Examples: edgecnn export runs/parts --target desktop-cpu --out bundle/ · "
    "edgecnn export model.onnx --data parts/ --preprocess pre.toml --out bundle/ · "
    "edgecnn export weights.pth --model timm:mobilenetv3_small_100 --data parts/ --out bundle/"
)


def export(
    source: Annotated[
        Path,
        typer.Argument(help="Run folder of `edgecnn finetune`; or an .onnx file; or weights (.pth, .ckpt, …)."),
    ],
    out: Annotated[Path, typer.Option(help="Bundle folder to write; an older bundle there is replaced.")],
    target: TargetName = "desktop-cpu",
    only: Only = None,
    quick: Quick = False,
    data: Annotated[
        Path | None, typer.Option(help="The images: of a file, always; of a run folder, where they have moved since.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of a weights file: its timm or torchvision network.")] = None,
    weights_key: WeightsKey = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="Of a file: TOML with height, width, mean, std, fit, crop.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Of a file: class names, one a line, in the order of its outputs.")
    ] = None,
    good: Good = None,
    seed: Seed = 0,
    skip_unreadable: Skip = False,
    min_per_class: MinPerClass = 5,
    group: Group = None,
    no_group: NoGroup = False,
    require: Require = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Convert, quantise and verify every variant of a target. Exit code 1 where one was left out.

    A file is taken in first: its run folder is written beside --out, as <out>-source. What is assumed of it (the order
    of its classes, its preprocessing) is printed; where it does not fit the labelled images: a warning and exit code 1.
    """
    from edgecnn import outputs, wanted
    from edgecnn.cli.closing import Ending, next_commands, show_closing
    from edgecnn.cli.live import log_beside, logged, say
    from edgecnn.cli.show import log_bundle, shortfalls, tell_why_1, warn
    from edgecnn.cli.terminal import print_json

    profile = wanted.asked_for(target, only, quick, require=require)
    wanted.refuse_missing(profile)
    from edgecnn.export import export as make
    from edgecnn.export import refuse_other_content

    refuse_other_content(out)
    log, told = log_beside(out), wanted.foretold(profile)
    if source.is_dir():
        given: dict[str, object] = {"--model": model, "--preprocess": preprocess, "--labels": labels, "--good": good}
        given |= {"--weights-key": weights_key, "--group": group, "--no-group": no_group or None}
        _refuse_no_run(source, given)
        with outputs.folders(out, apart_from=data), logged(log, verbose, told) as live:
            bundle = make(source, profile, out, data, say)
            log_bundle(bundle)
    else:
        reading: dict[str, Any] = {"good": good, "skip_unreadable": skip_unreadable, "min_per_class": min_per_class}
        reading |= {"group": group, "no_group": no_group}
        folder = out.resolve().with_name(f"{out.resolve().name}-source")
        images = _refuse_unusable(source, folder, data, model, preprocess, labels, weights_key)
        with outputs.folders(out, folder, apart_from=data), logged(log, verbose, told) as live:
            _take_in(source, folder, images, model, preprocess, labels, weights_key, seed, reading)
            bundle = make(folder, profile, out, data, say)
            log_bundle(bundle)
    if as_json:
        print_json(bundle.model_dump_json(indent=1))
    else:
        files = [("bundle", str(out)), ("log", str(log))]
        show_closing(bundle, (), Ending(next_commands(bundle, out), files, live.elapsed))
        warn(bundle.doubts)
    short = shortfalls(bundle)
    tell_why_1(short)
    raise typer.Exit(1 if short else 0)


VERB = Verb(export, after="finetune", example=_EPILOG, extras=("train",))


def _refuse_no_run(folder: Path, given: Mapping[str, object]) -> None:
    """UserError where a folder is no run, or options are given that only a file needs."""
    from edgecnn.adopt.sources import refuse_foreign_folder

    refuse_foreign_folder(folder)
    unfit = [option for option, value in given.items() if value is not None]
    if unfit:
        raise UserError(f"{folder}: a run folder has its own: leave {', '.join(unfit)} out")


def _refuse_unusable(
    source: Path,
    folder: Path,
    data: Path | None,
    model: str | None,
    preprocess: Path | None,
    labels: Path | None,
    weights_key: str | None,
) -> Path:
    """The folder of images; UserError where a file cannot be taken in as it was given."""
    from edgecnn.adopt.folder import refuse_other_content
    from edgecnn.adopt.sources import refuse_unfit

    need("train", "onnx")
    refuse_unfit(source, model, preprocess, labels, weights_key)
    if data is None:
        raise UserError(f"{source}: --data is missing: calibration and verification need the images of its classes")
    refuse_other_content(folder)
    return data


def _take_in(
    source: Path,
    folder: Path,
    data: Path,
    model: str | None,
    preprocess: Path | None,
    labels: Path | None,
    weights_key: str | None,
    seed: int,
    reading: dict[str, Any],
) -> None:
    """Make the run folder that `source` becomes."""
    from edgecnn.adopt.folder import adopt
    from edgecnn.cli.live import progress_bar, say
    from edgecnn.cli.show import warn

    with progress_bar() as bar:
        dataset = read_labelled(data, seed, reading, bar)
    taken = adopt(
        source,
        dataset,
        folder,
        model=model,
        preprocess=preprocess,
        labels=labels,
        weights_key=weights_key,
        seed=seed,
        progress=say,
    )
    for note in taken.notes:
        say(f"{source.name}: {note}")
    warn(taken.doubts)
