"""ExecuTorch beyond the contract of every format: one partition, what XNNPACK ran and left float, threads, errors."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecnn import formats
from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.formats import Source
from edgecnn.models import Deployed
from edgecnn.quantize.flat import flatten, layers_of
from edgecnn.quantize.ladder import Attempt
from edgecnn.runtimes import open_file
from tests.conftest import pictures
from tests.networks import eager, error, tuning_by
from tests.real import MACS as REAL_MACS
from tests.real import mobilenet_v2

if importlib.util.find_spec("executorch") is None:
    pytest.skip("executorch is not installed", allow_module_level=True)

from edgecnn.quantize.engines import executorch as quantize_executorch
from edgecnn.runtimes import executorch as runtime

SIZE, CLASSES = 32, 3
images = partial(pictures, side=SIZE)
PIXELS = (SIZE // 2) ** 2
MACS = {
    "stem": 8 * 3 * 9 * PIXELS,
    "depthwise": 8 * 9 * PIXELS,
    "squeeze": 8 * 8,
    "left": 8 * 4 * PIXELS,
    "right": 8 * 4 * PIXELS,
    "head": 8 * CLASSES,
}


class Net(nn.Module):
    """Padding of one side, activations, squeeze-and-excite, a residual, a join of two scales, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.left = nn.Conv2d(8, 4, 1)
        self.right = nn.Conv2d(8, 4, 1)
        self.act = nn.ReLU6(inplace=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(nn.functional.pad(x, (0, 1, 0, 1)))))
        x = nn.functional.hardswish(self.depthwise(x)) + x
        x = x * nn.functional.hardsigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = torch.cat([nn.functional.relu(self.left(x)), 3 * self.right(x)], dim=1)
        x = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 2), 1)
        logits: Tensor = self.head(x.flatten(1))
        return logits


@pytest.fixture(scope="module")
def module() -> Deployed:
    torch.manual_seed(1)
    net = Net()
    net.norm.running_mean, net.norm.running_var = 0.1 * torch.randn(8), 0.5 + torch.rand(8)
    return Deployed(net.eval(), Preprocess(height=SIZE, width=SIZE)).eval()


@pytest.fixture(scope="module")
def attempt(module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    source = Source(flatten(module, SIZE, SIZE), SIZE, SIZE, tmp_path_factory.mktemp("work"))
    return Attempt("min-max", source, "min-max")


def written(attempt: Attempt, module: nn.Module, out: Path) -> Path:
    files = quantize_executorch.QUANTIZER.write(attempt, tuning_by(module, images, 12, 8), out)
    return out / files[0]


@pytest.fixture(scope="module")
def fp32(module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    return folder / formats.convert("executorch", Source(module, SIZE, SIZE, folder), "fp32", folder).files[0]


@pytest.fixture(scope="module")
def int8(attempt: Attempt, module: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(attempt, module, tmp_path_factory.mktemp("int8"))


def test_fp32_is_one_partition_and_only_the_pixels_cast_is_left_to_portable_code(fp32: Path, module: Deployed) -> None:
    session = open_file(fp32, "executorch", "fp32", 1)
    batch = images(4, 200)
    assert error(session.run(batch), eager(module, batch)) < 1e-4
    report = session.executed()
    assert report.source == "engine"
    assert report.partitions == 1
    assert report.outside_delegate == {"_to_dim_order_copy.out": 1}
    assert report.mac_shares == {"fp32": 1.0}
    assert {layer.name: layer.macs for layer in report.layers} == MACS
    assert report.remarks == ()
    session.close()


def test_int8_runs_in_int8_and_answers_as_before(int8: Path, module: Deployed) -> None:
    session = open_file(int8, "executorch", "int8", 1)
    batch = images(6, 200)
    assert error(session.run(batch), eager(module, batch)) < 0.25
    report = session.executed()
    assert report.mac_shares == {"int8": 1.0}
    assert report.int8_layers == len(MACS)
    assert report.partitions == 1
    assert {layer.name: layer.macs for layer in report.layers} == MACS
    assert all("QC8" in layer.kind for layer in report.layers)
    assert report.remarks == ()


def test_an_image_is_answered_the_same_whatever_came_before_it(int8: Path) -> None:
    session = open_file(int8, "executorch", "int8", 1)
    batch = images(6, 300)
    assert np.array_equal(session.run(batch)[::-1], session.run(batch[::-1]))


def test_layers_kept_in_float_are_float_and_reported(attempt: Attempt, module: Deployed, tmp_path: Path) -> None:
    kept = tuple(layer for layer in layers_of(attempt.source.module) if layer.name in ("depthwise", "head"))
    session = open_file(written(replace(attempt, in_float=kept), module, tmp_path), "executorch", "int8", 1)
    report = session.executed()
    assert [layer.name for layer in report.layers if layer.precision == "fp32"] == ["depthwise", "head"]
    assert "kept in float by the file" in report.remarks[0]
    assert error(session.run(images(4, 200)), eager(module, images(4, 200))) < 0.25


def test_without_a_trace_the_compiler_is_quoted(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_trace", lambda *given: None)
    report = open_file(int8, "executorch", "int8", 1).executed()
    assert report.source == "compiler"
    assert "without its trace" in report.remarks[0]
    assert report.mac_shares == {"int8": 1.0}
    assert report.partitions == 1


def test_kernels_that_the_compiler_did_not_announce_are_remarked(int8: Path, tmp_path: Path) -> None:
    account = json.loads(int8.with_suffix(".json").read_text())
    account["layers"] = account["layers"][1:]
    (tmp_path / "model.pte").write_bytes(int8.read_bytes())
    (tmp_path / "model.json").write_text(json.dumps(account))
    report = open_file(tmp_path / "model.pte", "executorch", "int8", 1).executed()
    assert "5 layers were compiled and XNNPACK ran 6" in report.remarks[0]
    assert report.int8_layers == 6


def test_threads_are_set(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = runtime._library()
    for threads in (2, 1):
        session = open_file(int8, "executorch", "int8", threads)
        assert library._threadpool_get_thread_count() == threads
        assert session.executed().remarks == ()
    session._asked = 3  # type: ignore[attr-defined]
    assert session.executed().remarks == ("3 threads asked for, 1 used",)


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        ("Fully Connected (NC, F32) GEMM", "fp32"),
        ("Fully Connected (NC, F16) GEMM", "fp16"),
        ("Convolution (NHWC, QC8) DWConv", "int8"),
        ("Fully Connected (NC, QS8, QC8W) GEMM", "int8"),
        ("Fully Connected (NC, QDU8, F32, QC8W) GEMM", "int8"),
    ],
)
def test_a_kernel_tells_its_precision(kernel: str, precision: str) -> None:
    assert runtime._precision(kernel) == precision


def test_a_network_that_cannot_be_compiled_is_one_line(tmp_path: Path) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean((1, 2)) if x.float().mean() > 3 else x.float().amax((1, 2))

    with pytest.raises(UserError, match="executorch: torch.export cannot capture this network") as caught:
        formats.convert("executorch", Source(Net(), 8, 8, tmp_path), "fp32", tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.shared
@pytest.mark.slow
def test_real_weights_keep_their_decisions(shared: Path, tmp_path: Path) -> None:
    """MobileNetV2 on ImageNet images: fp32 to 1e-4 of the logits' scale, int8 on 85 of 100 images as fp32."""
    real = mobilenet_v2(shared, tmp_path)
    converted = formats.convert("executorch", real.source, "fp32", tmp_path / "fp32")
    answers = open_file(tmp_path / "fp32" / converted.files[0], "executorch", "fp32", 1).run(real.images)
    assert np.abs(answers - real.logits).max() < 1e-4 * real.logits.std()
    (tmp_path / "out").mkdir()
    attempt = Attempt("p", real.source, "percentile 99.99")
    files = quantize_executorch.QUANTIZER.write(attempt, real.tuning, tmp_path / "out")
    session = open_file(tmp_path / "out" / files[0], "executorch", "int8", 1)
    assert (session.run(real.images).argmax(1) == real.logits.argmax(1)).mean() >= 0.85
    report = session.executed()
    assert report.mac_shares == {"int8": 1.0}
    assert sum(layer.macs for layer in report.layers) == REAL_MACS
