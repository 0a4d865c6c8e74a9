"""`edgecnn report`: report.md and report.html of a bundle's runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.options import BudgetText, BundleFolder
from edgecnn.cli.verbs import Verb


def report(
    bundle: BundleFolder,
    runs: Annotated[Path, typer.Option(help="Raw runs in JSONL, made by `edgecnn bench`.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md and report.html.")],
    data: Annotated[Path | None, typer.Option(help="The images, for pictures of the mistakes.")] = None,
    budget: BudgetText = None,
    run: Annotated[Path | None, typer.Option(help="Run folder, for the curves of its training.")] = None,
) -> None:
    """Write report.md and a self-contained report.html."""
    from edgecnn import outputs
    from edgecnn.bench.report import write_report
    from edgecnn.cli.live import say
    from edgecnn.profiles import parse_budget

    with outputs.folders(out, least_bytes=outputs.LITTLE):
        markdown, html = write_report(bundle, runs, out, data, parse_budget(budget) if budget else None, run, say)
    print(f"{html}\n{markdown}")


VERB = Verb(
    report,
    after="bench",
    example="Example: edgecnn report bundle/ --runs bench.jsonl --out report/ --data parts/",
    extras=("report",),
)
