"""`edgecnn run`: from a folder of labelled images to a bundle that is measured and reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli.folding import over_folds, show_pooled
from edgecnn.cli.options import BudgetText, Data, Json, Only, Quick, Samples, TargetName, Verbose
from edgecnn.cli.training import fine_tune_from, takes_training
from edgecnn.cli.verbs import Verb
from edgecnn.errors import MissingExtra
from edgecnn.progress import Stage

if TYPE_CHECKING:
    from edgecnn.artifact import Bundle
    from edgecnn.pooled import Pooled


@takes_training
def run(
    data: Data,
    target: TargetName = "desktop-cpu",
    only: Only = None,
    quick: Quick = False,
    out: Annotated[Path | None, typer.Option(help="Default: runs/<data folder>-<model>-<target>.")] = None,
    budget: BudgetText = None,
    samples: Samples = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="So many networks, each image a test image of one of them, and their answers pooled: for few images. "
            "The bundle is the first one's.",
        ),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    **training: Any,
) -> None:
    """Fine-tune, export, verify, bench, choose, report. Stages that are done are not done again.

    With --folds the first fold is fine-tuned, exported and benched as a run without it is; the others stand beside it
    in fold-2/, …, and folds.json holds what all say together, of the way of training rather than of one network. Splits
    that the folder gives are not used. Exit code 1 where all folds together refuse a variant that the bundle keeps.
    """
    from edgecnn import outputs, wanted
    from edgecnn.bench import overall, samples_for
    from edgecnn.cli.closing import Ending, next_commands, show_closing
    from edgecnn.cli.live import logged, say
    from edgecnn.cli.show import log_bundle, log_rows, shortfalls, tell_why_1, warn

    profile = wanted.asked_for(target, only, quick, budget)
    no_report = wanted.missing_for_report()
    wanted.refuse_missing(profile, no_report)
    from edgecnn.export import export as make_bundle
    from edgecnn.export import refuse_other_content as refuse_other_bundle
    from edgecnn.pipeline import bench_once, choose, remove_results, with_choice
    from edgecnn.pooled import refused
    from edgecnn.train.folder import refuse_other_content as refuse_other_run

    folder = out or Path("runs") / f"{data.resolve().name}-{training['model'].rpartition(':')[2]}-{profile.name}"
    log = folder / "run.log"
    told = wanted.foretold(profile, no_report, training["minutes"], samples_for(profile.budget, samples))
    refuse_other_run(folder / "train")
    refuse_other_bundle(folder / "bundle")
    with (
        outputs.folders(folder, folder / "train", folder / "bundle", apart_from=data),
        logged(log, verbose, told) as live,
    ):
        pooled, short = over_folds(data, folder, folds, profile, training) if folds else (None, [])
        if pooled is None:
            fine_tune_from(data, folder / "train", training)
            if training["restart"]:
                remove_results(folder)
        make_bundle(folder / "train", profile, folder / "bundle", data, say)
        rows = bench_once(folder / "bundle", folder / "bench.jsonl", samples, say)
        bundle = choose(folder / "bundle", rows)
        rows = with_choice(rows, bundle)
        log_bundle(bundle)
        log_rows(rows)
        say(Stage("report"))
        page = _report(folder, data, pooled)
    verdict, beyond = overall(rows), refused(pooled, bundle) if pooled else {}
    if as_json:
        summary = {**verdict.model_dump(mode="json"), **_fate(bundle, pooled, beyond), **_paths(folder, page)}
        print(json.dumps(summary, indent=1))
    else:
        if pooled:
            show_pooled(pooled)
        commands = next_commands(bundle, folder / "bundle")
        show_closing(bundle, rows, Ending(commands, [("report", page), ("log", str(log))], live.elapsed))
    warn(bundle.doubts)
    short = [*(short or shortfalls(bundle)), *(f"{variant}: all folds together refuse it" for variant in beyond)]
    tell_why_1(short)
    raise typer.Exit(1 if short else verdict.exit_code)


def _report(folder: Path, data: Path, pooled: Pooled | None) -> str:
    """Where the page is, or why it is not."""
    from edgecnn.bench.report import write_report

    try:
        pages = write_report(
            folder / "bundle", folder / "bench.jsonl", folder, data, run=folder / "train", pooled=pooled
        )
    except MissingExtra as error:
        return f"not written, {error}"
    return str(pages[1])


def _fate(bundle: Bundle, pooled: Pooled | None, beyond: Mapping[str, str]) -> dict[str, Any]:
    """Which variant was chosen, which were left out, and what all folds together say."""
    choice = bundle.choice.model_dump() if bundle.choice else None
    fate = {"choice": choice, "left_out": [left.model_dump(mode="json") for left in bundle.left_out]}
    return fate if pooled is None else {**fate, "pooled": {**pooled.model_dump(mode="json"), "refused": beyond}}


def _paths(folder: Path, page: str) -> dict[str, str]:
    return {"bundle": str(folder / "bundle"), "report": page, "runs": str(folder / "bench.jsonl")}


VERB = Verb(
    run,
    after="demo-data",
    example="Example: edgecnn run parts/ --model mobilenet_v2 --weights weights.safetensors --target desktop-cpu",
    extras=("train", "report"),
)
