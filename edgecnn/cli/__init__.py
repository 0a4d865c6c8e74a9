"""The command line: each verb parses, calls one function, prints. Heavy imports happen inside the verbs."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecnn import __version__
from edgecnn.cli import embed, explain, exporting, networks, planning, rehearsing, verifying
from edgecnn.cli.exporting import is_complete, show_bundle
from edgecnn.cli.extras import is_first_process
from edgecnn.cli.options import BudgetText, BundleFolder, Data, Json, Require, Samples, TargetName
from edgecnn.cli.training import fine_tune_from, takes_training
from edgecnn.errors import MissingExtra, UserError

app = typer.Typer(
    name="edgecnn",
    help="From a folder of labelled images to a bundle that is proven to meet its latency budget on a named device.",
    epilog="Exit codes: 0 done, or PASS · 1 FAIL, or a variant was left out · 2 a mistake in what was given · "
    "3 INCONCLUSIVE · 70 a fault of edgecnn · 130 interrupted (the same command goes on). "
    "Start with: edgecnn demo-data surfaces && edgecnn run surfaces "
    "--model edgecnn_mobilenetv2_035",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


for verbs in (exporting, verifying, rehearsing, planning, embed, networks, explain):
    verbs.register(app)


def main() -> None:
    """Entry point of `edgecnn`."""
    _run(app)


def bench_main() -> None:
    """Entry point of `bench`: the same as `edgecnn bench`."""
    sys.argv.insert(1, "bench")
    _run(app)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("demo-data", epilog="Example: edgecnn demo-data surfaces --images 1200 --seed 0")
def demo_data(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    images: Annotated[int, typer.Option(help="How many.")] = 1200,
    seed: Annotated[int, typer.Option(help="The same seed draws the same bytes.")] = 0,
) -> None:
    """Draw a labelled set of surfaces: good, crack, scratch, dent, discolour."""
    from edgecnn.cli.show import progress_bar
    from edgecnn.data.surfaces import write_demo_data

    with progress_bar() as bar:
        bar.start(images, "drawing")
        write_demo_data(out, images, seed, progress=bar.count)
    print(f"{out}: {images} images")


@app.command(
    epilog="Example: edgecnn finetune parts/ --model mobilenetv2_100 --weights weights.safetensors --out runs/parts"
)
@takes_training
def finetune(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder; a run that was cut off there is taken up again.")],
    as_json: Json = False,
    **training: Any,
) -> None:
    """Fine-tune a network on a folder of labelled images.

    Several processes: torchrun --nproc-per-node 2 -m edgecnn finetune …
    """
    checkpoint = fine_tune_from(data, out, training)
    if not is_first_process():
        return
    if as_json:
        print(checkpoint.model_dump_json(indent=1))
        return
    metrics = checkpoint.metrics
    accuracy = "no validation images" if metrics.val_top1 is None else f"validation top-1 {metrics.val_top1:.1%}"
    print(f"{out}: {checkpoint.model}, recipe {checkpoint.recipe.name} ({checkpoint.reason})")
    print(f"{accuracy}, {metrics.epochs} epochs in {metrics.minutes:.1f} min, weights from {checkpoint.weights}")


@app.command(epilog="Example: edgecnn bench bundle/ --budget 30ms@p99 --variant openvino-int8")
def bench(
    bundle: BundleFolder,
    variant: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    images: Annotated[Path | None, typer.Option(help="Encoded images. Default: the bundle's golden images.")] = None,
    budget: BudgetText = None,
    threads: Annotated[int | None, typer.Option(help="Default: the target's.")] = None,
    samples: Samples = None,
    out: Annotated[Path | None, typer.Option(help="Folder or .jsonl for the raw runs. Default: runs/bench/…")] = None,
    null: Annotated[bool, typer.Option(help="Also measure what the harness itself costs.")] = True,
    require: Require = None,
    as_json: Json = False,
) -> None:
    """Measure from encoded bytes to decision, batch 1; verdict against the budget.

    Exit code 0 PASS, 1 FAIL, 3 INCONCLUSIVE: of the bundle's chosen variant, else of the best. 1 too where an int8
    variant does not run what --require asks for.
    """
    from edgecnn.bench import as_json as rows_as_json
    from edgecnn.bench import bench as measure
    from edgecnn.bench import overall, unmet_by
    from edgecnn.cli.show import say
    from edgecnn.profiles import parse_budget
    from edgecnn.require import parse

    required = parse(require) if require else ()
    rows = measure(
        bundle,
        variants=variant,
        images=images,
        budget=parse_budget(budget) if budget else None,
        threads=threads,
        samples=samples,
        out=out,
        null=null,
        progress=say,
    )
    if as_json:
        print(json.dumps(rows_as_json(rows), indent=1))
    else:
        _show_rows(rows)
    failing = unmet_by(rows, required)
    for line in failing:
        print(line, file=sys.stderr)
    raise typer.Exit(overall(rows).exit_code or bool(failing))


@app.command(
    epilog="Example: edgecnn run parts/ --model mobilenet_v2 --weights weights.safetensors --target desktop-cpu"
)
@takes_training
def run(
    data: Data,
    target: TargetName = "desktop-cpu",
    out: Annotated[Path | None, typer.Option(help="Default: runs/<data folder>-<model>-<target>.")] = None,
    budget: BudgetText = None,
    samples: Samples = None,
    as_json: Json = False,
    **training: Any,
) -> None:
    """Fine-tune, export, verify, bench, choose, report. Stages that are done are not done again."""
    from edgecnn.bench import overall
    from edgecnn.bench.report import write_report
    from edgecnn.cli.show import say
    from edgecnn.export import export as make_bundle
    from edgecnn.pipeline import bench_once, choose, remove_results, with_choice
    from edgecnn.profiles import load_target, parse_budget

    profile = load_target(target)
    if budget:
        profile = profile.model_copy(update={"budget": str(parse_budget(budget))})
    folder = out or Path("runs") / f"{data.resolve().name}-{training['model'].rpartition(':')[2]}-{profile.name}"
    fine_tune_from(data, folder / "train", training)
    if training["restart"]:
        remove_results(folder)
    make_bundle(folder / "train", profile, folder / "bundle", data, say)
    rows = bench_once(folder / "bundle", folder / "bench.jsonl", samples, say)
    bundle = choose(folder / "bundle", rows)
    rows = with_choice(rows, bundle)
    try:
        page = str(write_report(folder / "bundle", folder / "bench.jsonl", folder, data, run=folder / "train")[1])
    except MissingExtra as error:
        page = f"not written, {error}"
    verdict = overall(rows)
    if as_json:
        paths = {"bundle": str(folder / "bundle"), "report": page, "runs": str(folder / "bench.jsonl")}
        left_out = [left.model_dump(mode="json") for left in bundle.left_out]
        choice = bundle.choice.model_dump() if bundle.choice else None
        summary = {**verdict.model_dump(mode="json"), "choice": choice, "left_out": left_out, **paths}
        print(json.dumps(summary, indent=1))
    else:
        show_bundle(bundle, folder / "bundle", as_json=False)
        _show_rows(rows)
        print(f"bundle: {folder / 'bundle'}\nreport: {page}")
    if verdict.exit_code == 0 and not is_complete(bundle):
        raise typer.Exit(1)
    raise typer.Exit(verdict.exit_code)


@app.command(epilog="Example: edgecnn report bundle/ --runs bench.jsonl --out report/ --data parts/")
def report(
    bundle: BundleFolder,
    runs: Annotated[Path, typer.Option(help="Raw runs in JSONL, made by `edgecnn bench`.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md and report.html.")],
    data: Annotated[Path | None, typer.Option(help="The images, for thumbnails of what INT8 flipped.")] = None,
    budget: BudgetText = None,
    run: Annotated[Path | None, typer.Option(help="Run folder, for the curves of its training.")] = None,
) -> None:
    """Write report.md and a self-contained report.html."""
    from edgecnn.bench.report import write_report
    from edgecnn.profiles import parse_budget

    markdown, html = write_report(bundle, runs, out, data, parse_budget(budget) if budget else None, run)
    print(f"{html}\n{markdown}")


@app.command(epilog="Example: edgecnn doctor --json")
def doctor(as_json: Json = False) -> None:
    """What this machine has, what is missing for which verb, and the command to get it."""
    from edgecnn.cli.show import console, findings
    from edgecnn.doctor import examine, lines

    diagnosis = examine()
    if as_json:
        print(diagnosis.model_dump_json(indent=1))
    else:
        console().print(findings(lines(diagnosis)))
    raise typer.Exit(diagnosis.exit_code)


def _show_rows(rows: Any) -> None:
    from edgecnn.bench import overall, table
    from edgecnn.cli.show import console, latencies, styled

    cells = table(rows)
    output = console()
    output.print("latency from encoded bytes to decision, ms (bound: 99 % confidence, of the budget's percentile)")
    output.print(latencies(cells))
    for row in cells:
        if row["reason"] and row["verdict"] != "PASS":
            output.print(f"{row['variant']}: {row['reason']}")
        for note in row["notes"]:
            output.print(f"{row['variant']}: {note}")
    verdict = overall(rows)
    output.print(f"{styled(verdict.outcome)}  {verdict.reason}")


def _run(command: typer.Typer) -> None:
    """Exit codes: a user's mistake or the system's refusal 2, with one line; a fault of ours 70, with its traceback."""
    try:
        command()
    except UserError as error:
        print(f"edgecnn: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"edgecnn: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(70)
