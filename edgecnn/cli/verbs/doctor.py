"""`edgecnn doctor`: what this machine has, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.options import Json
from edgecnn.cli.terminal import print_json
from edgecnn.cli.verbs import Verb, in_order


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle folder: whether this machine can run it.")] = None,
    as_json: Json = False,
) -> None:
    """What this machine has, what is missing, and how to get it.

    With a bundle: whether this machine can run it, what is missing, and whether its variants are proven on this
    processor. Exit code 1 where the base install is broken or no variant of the bundle runs here.
    """
    from edgecnn.cli.show import findings, show_table
    from edgecnn.doctor import examine, lines

    diagnosis = examine(in_order(), bundle=bundle)
    if as_json:
        print_json(diagnosis.model_dump_json(indent=1))
    else:
        for line in diagnosis.bundle.answer if diagnosis.bundle else ():
            print(line)
        show_table(findings(lines(diagnosis)))
    raise typer.Exit(diagnosis.exit_code)


VERB = Verb(doctor, after="report", example="Example: edgecnn doctor bundle/")
