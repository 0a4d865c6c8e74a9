"""The command line: its verbs in the order of the flow, each with its heavy imports inside; how a mistake ends."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgecnn import __version__
from edgecnn.cli import terminal, usage
from edgecnn.cli.verbs import in_order, register
from edgecnn.disk import refusal
from edgecnn.ending import end_in_order
from edgecnn.errors import UserError, first_line, one_line, out_of_memory

app = typer.Typer(
    name="edgecnn",
    help="From a folder of labelled images to a bundle that is proven to meet its latency budget on a named device.",
    epilog="Exit codes: 0 done, or PASS · 1 FAIL, a variant left out, or a network in doubt · "
    "2 a mistake in what was given · 3 INCONCLUSIVE · 70 a fault of edgecnn · "
    "130 interrupted (the same command goes on). "
    "Start with: edgecnn demo-data surfaces && edgecnn run surfaces "
    "--model edgecnn_mobilenetv2_035",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


_INTERRUPTED = 130

for verb in in_order():
    register(app, verb)


def main() -> None:
    """Entry point of `edgecnn`."""
    _run(app)


def bench_main() -> None:
    """Entry point of `bench`: the same as `edgecnn bench`."""
    sys.argv[:1] = ["edgecnn", "bench"]
    _run(app)


@app.callback(invoke_without_command=True)
def _without_a_verb(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def _run(command: typer.Typer) -> None:
    """Exit codes: a user's mistake or the system's refusal 2, with one line; a fault of ours 70, with its traceback."""
    terminal.make_ready()
    end_in_order()
    try:
        try:
            _refuse_no_working_folder()
            usage.refuse_empty_words(sys.argv[1:])
            code = command(prog_name="edgecnn", standalone_mode=False)
        finally:
            sys.stdout.flush()  # while it can still be told that the disk is full
        sys.exit(code)
    except (KeyboardInterrupt, SystemExit) as left:
        if isinstance(left, SystemExit) and left.code != _INTERRUPTED:
            raise
        print("edgecnn: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(refusal(error))
    except Exception as error:
        cause = _cause(error)
        if cause:
            _refuse(cause)
        traceback.print_exc()
        sys.exit(70)


def _refuse_no_working_folder() -> None:
    """Libraries end the process without a word that helps, or name no path."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the folder that this was started in is gone: cd to one that is there") from None


def _cause(error: Exception) -> str | None:
    """Why a library failed, where that is no fault of ours."""
    misused = usage.mistake_of(error)
    if misused:
        return misused
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] != "edgecnn":
        return f"{error.name or 'a library'} does not load: {first_line(error)}: `edgecnn doctor` tells what to do"
    if out_of_memory(error):
        return "out of memory (what the machine has, or ulimit -v): free some, or raise the limit, then the same again"
    return None


def _refuse(why: str) -> NoReturn:
    print(f"edgecnn: {one_line(why)}", file=sys.stderr)
    terminal.drop_unwritten()
    sys.exit(2)
