"""`edgecnn export`: a checkpoint, or somebody else's network, to a verified bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from edgecnn.artifact import Seen

_EPILOG = """Examples: edgecnn export runs/parts --out bundle/ ·
edgecnn export weights.pth --model timm:mobilenetv3_small_100 --data parts/ --out bundle/

\b
What --preprocess names, such as pre.toml (all keys: edgecnn verify --help):
  size = [224, 224]
  fit = "center-crop"           # or "stretch": the whole image
  resize_short = 256            # or crop = 0.875
  mean = [0.485, 0.456, 0.406]
  std = [0.229, 0.224, 0.225]"""


_ASSUMED = ("preprocessing: ", "classes in the order", "resize: ")
"""Notes that are told without -v."""


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
        Path | None, typer.Option(help="Of a file: how images are prepared, a .toml (below).")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, max=4096, help="Of a file: its input size in pixels.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Of a file: classes, a line each, as its outputs go.")] = None,
    test: Annotated[Path | None, typer.Option(help="Of a file: test images that it was not trained on.")] = None,
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

    A file is taken in first, as the run folder <out>-source. What is assumed of it is printed; where it does not fit
    the labelled images: a warning and exit code 1.
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
    said = {"model": model, "preprocess": preprocess, "labels": labels, "weights_key": weights_key, "size": size}
    if source.is_dir():
        others = {"good": good, "group": group, "no_group": no_group or None, "test": test}
        _refuse_no_run(source, {**said, **others})
        with outputs.folders(out, apart_from=data), logged(log, verbose, told) as live:
            bundle = make(source, profile, out, data, say)
            log_bundle(bundle)
    else:
        reading: dict[str, Any] = {"good": good, "skip_unreadable": skip_unreadable, "min_per_class": min_per_class}
        reading |= {"group": group, "no_group": no_group}
        folder = out.resolve().with_name(f"{out.resolve().name}-source")
        images = _refuse_unusable(source, folder, data, said)
        with outputs.folders(out, folder, apart_from=data), logged(log, verbose, told) as live:
            _take_in(source, folder, images, test, {**said, "seed": seed}, reading)
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
    unfit = [f"--{option.replace('_', '-')}" for option, value in given.items() if value is not None]
    if unfit:
        raise UserError(f"{folder}: a run folder has its own: leave {', '.join(unfit)} out")


def _refuse_unusable(
    source: Path,
    folder: Path,
    data: Path | None,
    said: Mapping[str, Any],
) -> Path:
    """The folder of images; UserError where a file cannot be taken in as it was given."""
    from edgecnn.adopt.folder import refuse_other_content
    from edgecnn.adopt.sources import refuse_unfit

    need("train", "onnx")
    refuse_unfit(source, said["model"], said["preprocess"], said["labels"], said["weights_key"])
    if data is None:
        raise UserError(f"{source}: --data is missing: calibration and verification need the images of its classes")
    refuse_other_content(folder)
    return data


def _take_in(
    source: Path,
    folder: Path,
    data: Path,
    test: Path | None,
    said: Mapping[str, Any],
    reading: Mapping[str, Any],
) -> None:
    """Make the run folder that `source` becomes. `said`: what `adopt` is told of it."""
    from edgecnn.adopt.folder import adopt
    from edgecnn.cli.live import progress_bar, say
    from edgecnn.cli.show import warn
    from edgecnn.data import gives_test, with_test
    from edgecnn.mistakes import TOO_GOOD
    from edgecnn.progress import Stage

    with progress_bar() as bar:
        dataset = read_labelled(data, said["seed"], reading, bar)
    if test is not None:
        looks = reading["group"] is None and not reading["no_group"]
        dataset = with_test(dataset, test, looks=looks, skip_unreadable=reading["skip_unreadable"])
        say(dataset.remarks[-1])
    seen: Seen = "no" if test is not None or gives_test(data) else "may be"
    taken = adopt(source, dataset, folder, test_seen=seen, progress=say, **said)
    for note in taken.notes:
        say(Stage(f"{source.name}: {note}") if note.startswith(_ASSUMED) else f"{source.name}: {note}")
    if taken.test_seen != "no":
        say(Stage(TOO_GOOD))
    warn(taken.doubts)
