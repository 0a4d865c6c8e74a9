"""`edgecnn rehearse`: every variant on a board or a processor that is not there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.options import BundleFolder, Json, Verbose
from edgecnn.cli.terminal import print_json
from edgecnn.cli.verbs import Verb
from edgecnn.progress import Stage


def rehearse(
    bundle: BundleFolder,
    device: Annotated[
        str,
        typer.Option(
            help="raspberry-pi-3, raspberry-pi-4, raspberry-pi-5, x86-64-v2 (SSE4), x86-64-v3 (AVX2, no VNNI) or "
            "desktop-cpu (its oldest: x86-64-v3)."
        ),
    ],
    variant: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    images: Annotated[int, typer.Option(help="At most so many golden images.")] = 16,
    out: Annotated[Path | None, typer.Option(help="Also write the report as JSON there.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where the board is set up. Default: EDGECNN_CACHE or ~/.cache/edgecnn.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing: only what the cache has.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write into the bundle on which instruction sets its variants are proven.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a bundle on an emulated Raspberry Pi or an older x86-64.

    The same decisions, the same pixels, no illegal instruction? Numerics only, no times. Exit code 1 where a variant
    differs or dies, 3 where none could be run. The first call for a board fetches about 120 MB, for an x86-64 processor
    63 MB unless every engine can be held to it on this machine (Debian, Ubuntu or their like; no root needed).
    """
    from edgecnn import outputs
    from edgecnn.cli.live import say
    from edgecnn.cli.rehearsal import show_rehearsal
    from edgecnn.documents import write_atomically
    from edgecnn.errors import UserError
    from edgecnn.rehearse import record as write_proofs
    from edgecnn.rehearse import rehearse as run

    def tell(line: str) -> None:
        if verbose or isinstance(line, Stage):
            say(line)

    if out and out.resolve().is_relative_to(bundle.resolve()):
        raise UserError(f"{out}: lies inside the bundle, whose files are listed by hash: choose another --out")
    with ExitStack() as stack:
        stack.enter_context(outputs.files(out))
        if record:
            stack.enter_context(outputs.folders(bundle, least_bytes=outputs.LITTLE))
        found = run(bundle, device, variant or (), images, cache, offline, tell)
        text = found.model_dump_json(indent=1)
        if out:
            write_atomically(out, text + "\n")
        proven = write_proofs(bundle, found) if record else ()
    if as_json:
        print_json(text)
    else:
        show_rehearsal(found, verbose)
        if record:
            print(f"{bundle}: recorded as proven: {', '.join(proven) or 'nothing new'}")
    raise typer.Exit(found.exit_code)


VERB = Verb(rehearse, after="verify", example="Example: edgecnn rehearse bundle/ --device raspberry-pi-4", engines=True)
