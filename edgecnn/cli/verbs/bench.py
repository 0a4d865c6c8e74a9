"""`edgecnn bench`: latency from encoded bytes to decision, against the budget."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.options import BudgetText, BundleFolder, Json, Require, Samples, Verbose
from edgecnn.cli.verbs import Verb


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
    verbose: Verbose = False,
) -> None:
    """Measure from encoded bytes to decision, against the budget.

    One image at a time. Exit code 0 PASS, 1 FAIL, 3 INCONCLUSIVE: of the bundle's chosen variant, else of the best that
    may be deployed; 1 where none may be. 1 too where an int8 variant does not run what --require asks for.
    """
    from edgecnn.artifact import load_bundle
    from edgecnn.bench import as_json as rows_as_json
    from edgecnn.bench import bench as measure
    from edgecnn.bench import overall, results_path, unmet_by
    from edgecnn.cli.closing import Ending, show_closing
    from edgecnn.cli.live import say
    from edgecnn.cli.show import show_rows, warn
    from edgecnn.profiles import parse_budget
    from edgecnn.require import parse

    began, required = time.monotonic(), parse(require) if require else ()
    limit = parse_budget(budget) if budget else None
    opened = load_bundle(bundle)
    runs = results_path(bundle, opened, out)
    rows = measure(
        bundle,
        variants=variant,
        images=images,
        budget=limit,
        threads=threads,
        samples=samples,
        out=runs,
        null=null,
        progress=say,
    )
    if as_json:
        print(json.dumps(rows_as_json(rows), indent=1))
    else:
        if verbose:
            show_rows(rows)
        report = f"edgecnn report {shlex.quote(str(bundle))} --runs {shlex.quote(str(runs))} --out report/"
        show_closing(opened, rows, Ending([report], [("raw runs", str(runs))], time.monotonic() - began))
    warn(opened.doubts)
    failing = unmet_by(rows, required)
    for line in failing:
        print(line, file=sys.stderr)
    raise typer.Exit(1 if failing else overall(rows).exit_code)


VERB = Verb(
    bench,
    after="rehearse",
    example="Example: edgecnn bench bundle/ --budget 30ms@p99 --variant openvino-int8",
    engines=True,
)
