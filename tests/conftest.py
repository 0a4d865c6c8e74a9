"""Fixtures that several tests share."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from edgecnn.artifact import Provenance
from edgecnn.cli import main
from edgecnn.data import Dataset, load_folder

LOUD = (
    # jax, which litert-torch imports, at every later fork of the process: OpenVINO's, torch's.
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
    # setuptools, where pip is looked for after a converter has imported distutils.
    "ignore:Setuptools is replacing distutils:UserWarning",
)
"""Warnings that a library gives at another's doing, in whatever test comes after it in this process."""


settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_configure(config: pytest.Config) -> None:
    if "CI" not in os.environ:  # hypothesis has a profile of its own for CI: not timed either, and the same examples
        settings.load_profile("untimed")
    for one in LOUD:
        config.addinivalue_line("filterwarnings", one)


def call(*words: object) -> int:
    """Exit code of `edgecnn …` in this process."""
    before, sys.argv = sys.argv, ["edgecnn", *map(str, words)]
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.argv = before
    return 0


def encode(pixels: np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    """An image file in memory."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format, **options)
    return stream.getvalue()


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours with an edge, uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phases = rng.uniform(0, 6, (3, 2))
    waves = [127 + 90 * np.sin(5 * x + a) * np.cos(4 * y + b) for a, b in phases]
    image = np.stack(waves, axis=2)
    image[:, width // 2 :] *= rng.uniform(0.4, 0.9)
    return np.clip(image, 0, 255).astype(np.uint8)


def pictures(count: int, first: int = 0, *, side: int) -> np.ndarray:
    """Several squares, each with a seed of its own: uint8 (n, side, side, 3)."""
    return np.stack([picture(seed, side, side) for seed in range(first, first + count)])


def provenance(created: str, model: str, recipe: str = "none", **changes: Any) -> Provenance:
    """Where a bundle came from, as far as its test cares."""
    nothing = {"checkpoint_sha256": "0" * 64, "target_sha256": "0" * 64, "tools": {}, "host": {}, "splits": {}}
    return Provenance(created=created, model=model, recipe=recipe, **{"weights": "none", **nothing, **changes})


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """largest_file(bytes): no file may grow beyond that meanwhile, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def shared() -> Path:
    """The folder with real images and weights; skips where it is absent."""
    folder = Path(os.environ.get("EDGECNN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real images at {folder} (set EDGECNN_SHARED)")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """36 small squares of three classes."""
    from tests.training import write_images  # brings torch, which the base install has not

    root = tmp_path_factory.mktemp("images")
    write_images(root)
    return load_folder(root)
