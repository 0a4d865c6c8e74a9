"""A small network that every format and runtime is tried with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn import formats
from edgecnn.formats import Source
from edgecnn.judge import Yardstick
from edgecnn.quantize.candidates import Networks
from edgecnn.quantize.ladder import TuningSet
from tests.conftest import picture

HEIGHT, WIDTH, CLASSES, LAYERS = 32, 40, 3, 4


def images(count: int, first: int = 0) -> np.ndarray:
    return np.stack([picture(seed, HEIGHT, WIDTH) for seed in range(first, first + count)])


@pytest.fixture(scope="session")
def module() -> Any:
    """Convolution, depthwise convolution, residual, pooling, classifier: uint8 (n, 32, 40, 3) to (n, 3)."""
    import torch
    from torch import nn

    from edgecnn.artifact import Preprocess
    from edgecnn.models import Deployed

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
            self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
            self.pointwise = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x + self.pointwise(self.depthwise(x))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for batch in range(3):  # BatchNorm statistics other than 0 and 1
            net(torch.from_numpy(images(8, 8 * batch)).permute(0, 3, 1, 2).float() / 128 - 1)
    return Deployed(net.eval(), Preprocess(height=HEIGHT, width=WIDTH)).eval()


@pytest.fixture(scope="session")
def source(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """As in an export, what the formats make in its folder is made once for all of them."""
    return Source(module, HEIGHT, WIDTH, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def eager(module: Any) -> Any:
    """images -> logits of the module itself."""
    import torch

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(batch)).numpy()

    return run


@pytest.fixture(scope="session")
def tuning(eager: Any) -> TuningSet:
    validation = images(12, 100)
    logits = eager(validation)
    return TuningSet(
        calibration=images(16),
        validation=validation,
        validation_labels=logits.argmax(1),
        validation_logits=logits,
        yardstick=Yardstick(1.0),
        threads=1,
    )


@pytest.fixture(scope="session")
def networks(source: Source, tuning: TuningSet) -> Networks:
    return Networks(source, tuning)


def format_precisions() -> list[tuple[str, str]]:
    """Everything that the formats say they can write."""
    return [(name, precision) for name in formats.names() for precision in formats.get(name).precisions]
