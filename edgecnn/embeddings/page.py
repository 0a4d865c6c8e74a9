"""The images to look at, as a page with thumbnails that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from edgecnn.documents import write_atomically
from edgecnn.embeddings.features import Embedded
from edgecnn.embeddings.suspects import Duplicate, Mislabelled
from edgecnn.imaging import decode_whole
from edgecnn.installed import need

MOST = 60
"""Of each kind."""
_SIDE = 160


def write_page(path: Path, embedded: Embedded, twins: Sequence[Duplicate], wrong: Sequence[Mislabelled]) -> None:
    """Write the page whole. MissingExtra without jinja2."""
    need_jinja2()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    places = {item.name: item.path for item in embedded.images.items}

    def picture(name: str) -> str:
        return _thumbnail(places[name], embedded.meta["preprocess"]["bits"])

    environment = Environment(
        loader=PackageLoader("edgecnn.embeddings", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    content = environment.get_template("page.html.jinja").render(
        title=embedded.images.root.name,
        meta=embedded.meta,
        images=len(places),
        twins=twins[:MOST],
        all_twins=len(twins),
        wrong=wrong[:MOST],
        all_wrong=len(wrong),
        picture=picture,
    )
    write_atomically(path, content)


def need_jinja2() -> None:
    """Raises MissingExtra where jinja2 is not installed."""
    need("report", "jinja2")


def _thumbnail(path: Path, bits: int | None) -> str:
    image = Image.fromarray(decode_whole(path.read_bytes(), bits))
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
