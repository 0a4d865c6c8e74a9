"""At which size weights were trained, by labelled images: found, left at the library's, or asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from edgecnn.adopt.sizes import Trial, choose, settle, table
from edgecnn.artifact import Preprocess
from edgecnn.data import Dataset
from edgecnn.errors import UserError
from edgecnn.models import Deployed

USUAL = Preprocess(height=224, width=224)
IMAGES = 64


def trials(right: Mapping[int, int], loss: Mapping[int, float]) -> list[Trial]:
    """So many images are right at each size; losses with the same noise."""
    noise = np.random.default_rng(0).uniform(0, 0.01, IMAGES).astype(np.float32)
    return [
        Trial(
            USUAL.model_copy(update={"height": side, "width": side}),
            np.arange(IMAGES) < count,
            (loss[side] + noise).astype(np.float32),
        )
        for side, count in right.items()
    ]


def test_the_librarys_size_stands_where_no_other_fits_better() -> None:
    found = choose(trials({128: 60, 160: 62, 224: 63}, {128: 0.4, 160: 0.2, 224: 0.1}), USUAL)
    assert found is not None
    assert found.spec == USUAL
    same = choose(trials({128: 64, 224: 64}, {128: 0.1, 224: 0.1}), USUAL)
    assert same is not None
    assert same.spec == USUAL


def test_the_clearly_best_size_is_taken() -> None:
    found = choose(trials({96: 40, 128: 64, 160: 45, 224: 20}, {96: 0.9, 128: 0.1, 160: 0.7, 224: 2.0}), USUAL)
    assert found is not None
    assert found.spec.height == 128


def test_it_asks_where_another_fits_better_but_none_clearly() -> None:
    assert choose(trials({128: 64, 160: 64, 224: 64}, {128: 0.1, 160: 0.11, 224: 0.4}), USUAL) is None


def test_the_table_has_a_line_a_size() -> None:
    lines = table(trials({128: 64, 224: 32}, {128: 0.1, 224: 0.4}))
    assert lines[0].startswith("128×128: the whole image 100.0% right, loss 0.10")
    assert "50.0% right" in lines[1]


class Coarse(torch.nn.Module):
    """Knows the class by the number of pixels that it is given: right at one size alone."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        spread = x.std((1, 2, 3))
        sure = 8.0 if x.shape[2] == self.side else -8.0
        scores = torch.stack([mean < -0.7, (mean >= -0.7) & (spread < 0.5), (mean >= -0.7) & (spread >= 0.5)], 1)
        return sure * scores.float()


def test_sizes_are_tried_on_images(data: Dataset) -> None:
    items = (*data.train, *data.val)
    lines: list[str] = []
    right = settle(Deployed(Coarse(224), USUAL), USUAL, items, 1, "w.pth", lines.append)
    assert right[0] == USUAL
    assert "none of the other sizes" in right[1]
    assert sum("×" in line for line in lines) >= 8


def test_asking_names_the_likely_size(data: Dataset) -> None:
    items = (*data.train, *data.val)
    lines: list[str] = []
    try:
        found = settle(Deployed(Coarse(128), USUAL), USUAL, items, 1, "w.pth", lines.append)[0].height
    except UserError as error:
        assert "give the size it was trained at, such as --size 128" in str(error)
        assert "\n" not in str(error)
    else:
        assert found == 128


def test_weights_of_one_size_keep_it(data: Dataset) -> None:
    class Fixed(Coarse):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[2] != self.side:
                raise RuntimeError("another size")
            return super().forward(x)

    assert settle(Deployed(Fixed(224), USUAL), USUAL, data.train, 1, "w.pth", lambda text: None)[0].height == 224


@pytest.mark.parametrize("height", [224])
def test_sizes_that_are_not_square_are_left_alone(height: int, data: Dataset) -> None:
    spec = Preprocess(height=height, width=96)
    assert settle(Deployed(Coarse(1), spec), spec, data.train, 1, "w", lambda text: None)[0] == spec
