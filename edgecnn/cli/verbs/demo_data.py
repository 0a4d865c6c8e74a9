"""`edgecnn demo-data`: a labelled set of drawn surfaces, to try everything on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.verbs import Verb


def demo_data(
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    images: Annotated[int, typer.Option(help="How many.")] = 1200,
    seed: Annotated[int, typer.Option(help="The same seed draws the same bytes.")] = 0,
) -> None:
    """Draw a labelled set of surfaces to try things with.

    Classes: good, crack, scratch, dent, discolour.
    """
    from edgecnn import outputs
    from edgecnn.cli.live import progress_bar
    from edgecnn.data.surfaces import write_demo_data

    with outputs.folders(out, least_bytes=outputs.LITTLE), progress_bar() as bar:
        bar.start(images, "drawing")
        write_demo_data(out, images, seed, progress=bar.count)
    print(f"{out}: {images} images")


VERB = Verb(demo_data, after=None, example="Example: edgecnn demo-data surfaces --images 1200 --seed 0")
