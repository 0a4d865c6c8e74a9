"""Whatever a file is called, only the decoders that are meant see it; Pillow's own limit of size is nobody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from edgecnn.errors import BadImage
from edgecnn.imaging import decode_whole, orientation
from edgecnn.imaging.opened import opened
from tests.conftest import encode, picture
from tests.imaging.files import TAGGED


def test_no_image_starts_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: pytest.fail("Ghostscript"))
    encoded = encode(picture(2), "EPS")
    with pytest.raises(BadImage, match="not an image in a format that is read here"):
        decode_whole(encoded)
    assert orientation(encoded) == 1


@pytest.mark.parametrize("kind", TAGGED)
def test_an_orientation_is_read_beyond_the_size_of_which_pillow_warns(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = TAGGED[kind](picture(2, 40, 48), 6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 48 - 1)
    assert orientation(encoded) == 6
    assert decode_whole(encoded, 16).shape == (48, 40, 3)


def test_a_path_is_opened_alike(tmp_path: Path) -> None:
    path = tmp_path / "part.jpg"
    path.write_bytes(encode(np.zeros((4, 6, 3), np.uint8)))
    with opened(path) as image:
        assert (image.format, image.size) == ("PNG", (6, 4))
