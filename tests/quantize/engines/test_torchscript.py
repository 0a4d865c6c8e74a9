"""TorchScript int8 beyond the contract of every format: integer arithmetic, what stays float, and what was executed."""

from __future__ import annotations

import json
import platform
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
from edgecnn.judge import Yardstick
from edgecnn.models import Deployed
from edgecnn.quantize.engines import torchscript
from edgecnn.quantize.flat import flatten, layers_of
from edgecnn.quantize.grid import whole_weights
from edgecnn.quantize.ladder import Attempt, TuningSet
from edgecnn.quantize.lowering import ranges_of
from edgecnn.runtimes import open_file
from tests.conftest import pictures
from tests.networks import eager, error, tuning_by
from tests.real import MACS, mobilenet_v2

SIZE, CLASSES = 32, 3
images = partial(pictures, side=SIZE)
ROUNDING = 1e-4
"""Of float sums, relative to the logit scale: what an fp32 variant may differ by, too."""


class Net(nn.Module):
    """What the dialect knows: padding of one side, activations, gates, chunks, a join, a sum, a product, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.left = nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU6(inplace=True)
        self.swish = nn.Hardswish(inplace=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(nn.functional.pad(x, (0, 1, 0, 1)))))
        x = self.swish(self.depthwise(x)) + x
        x = x * nn.functional.hardsigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        first, second = x.chunk(2, dim=1)
        x = torch.cat([nn.functional.relu(self.left(first)), second, x], dim=1)
        x = x.view(x.shape[0], 2, 8, *x.shape[2:]).transpose(1, 2).reshape(x.shape[0], 16, *x.shape[2:])
        x = nn.functional.max_pool2d(x, 2)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def deployed(net: nn.Module, size: int = SIZE) -> Deployed:
    torch.manual_seed(0)
    for one in net.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_mean = 0.1 * torch.randn(one.num_features)
            one.running_var = 0.5 + torch.rand(one.num_features)
    return Deployed(net.eval(), Preprocess(height=size, width=size)).eval()


@pytest.fixture(scope="module")
def module() -> Deployed:
    torch.manual_seed(1)
    return deployed(Net())


@pytest.fixture
def attempt(module: Deployed, tmp_path: Path) -> Attempt:
    return Attempt("min-max", Source(flatten(module, SIZE, SIZE), SIZE, SIZE, tmp_path), "min-max")


def opened(attempt: Attempt, module: nn.Module, out: Path) -> Any:
    out.mkdir()
    files = torchscript.QUANTIZER.write(attempt, tuning_by(module, images, 12, 8), out)
    return open_file(out / files[0], "pytorch", "int8", 1)


def kinds(session: Any) -> list[str]:
    return [node.kind() for node in session._module.inlined_graph.nodes()]


def test_every_layer_but_the_classifier_runs_in_int8_and_the_network_answers_as_before(
    attempt: Attempt, module: Deployed, tmp_path: Path
) -> None:
    session = opened(attempt, module, tmp_path / "out")
    batch = images(5, 200)  # another batch size than the traced one: none is frozen in
    together = session.run(batch)
    assert error(together, eager(module, batch)) < 0.25
    one_by_one = np.concatenate([session.run(image[None]) for image in batch])
    # The integers are the same; the float classifier's sums are added in another order on some processors.
    assert error(one_by_one, together) < ROUNDING
    found = kinds(session)
    floating = {"aten::conv2d", "aten::linear", "aten::relu", "aten::hardtanh", "aten::add", "aten::mul", "aten::cat"}
    assert floating & set(found) == {"aten::linear"}  # in 8 bits, logits would tie
    assert {"quantized::conv2d_relu", "quantized::hardswish", "quantized::cat", "quantized::mul"} <= set(found)


def test_what_was_executed_is_named_and_counted(attempt: Attempt, module: Deployed, tmp_path: Path) -> None:
    report = opened(attempt, module, tmp_path / "out").executed()
    pixels = (SIZE // 2) ** 2
    assert {layer.name: layer.macs for layer in report.layers} == {
        "stem": 8 * 3 * 9 * pixels,
        "depthwise": 8 * 9 * pixels,
        "squeeze": 8 * 8,
        "left": 4 * 4 * pixels,
        "head": 16 * CLASSES,
    }
    assert [layer.name for layer in report.layers if layer.precision == "fp32"] == ["head"]
    assert report.mac_shares["int8"] > 0.999
    assert report.int8_layers == 4
    (remark,) = report.remarks
    assert "kept in float by the file: head" in remark
    assert report.quantize_ops > 0


def test_layers_kept_in_float_are_float_and_reported(attempt: Attempt, module: Deployed, tmp_path: Path) -> None:
    layers = layers_of(attempt.source.module)
    kept = tuple(layer for layer in layers if layer.name in ("depthwise", "head"))
    session = opened(replace(attempt, in_float=kept), module, tmp_path / "out")
    report = session.executed()
    floats = [layer.name for layer in report.layers if layer.precision == "fp32"]
    assert floats == ["depthwise", "head"]
    assert 0 < report.mac_shares["fp32"] < 1
    assert "asked for int8, but 2 of 5 layers" in report.remarks[0]
    assert error(session.run(images(4, 200)), eager(module, images(4, 200))) < 0.25


def test_a_convolution_is_the_arithmetic_of_integers(tmp_path: Path) -> None:
    """Against numpy with integers: weights and activations in 8 bits, sums exact, the result rounded once."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2 * 64, 2))
    module = Deployed(net, Preprocess(height=8, width=8)).eval()
    batch = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    graph = flatten(module, 8, 8)
    sets = TuningSet(batch, batch, np.zeros(6, np.int64), eager(module, batch), Yardstick(1.0), 1)
    attempt = Attempt("min-max", Source(graph, 8, 8, tmp_path), "min-max")
    (tmp_path / "out").mkdir()
    files = torchscript.QUANTIZER.write(attempt, sets, tmp_path / "out")
    session: Any = open_file(tmp_path / "out" / files[0], "pytorch", "int8", 1)
    inner = session._module.inlined_graph.copy()
    inner.eraseInput(0)
    for node in inner.nodes():
        if node.kind() in ("aten::quantize_per_tensor", "quantized::conv2d_relu"):
            inner.registerOutput(node.output())
    inner.makeMultiOutputIntoTuple()
    _, pixels, result = torch._C._create_function_from_graph("inner", inner)(torch.from_numpy(batch))
    bias = net[0].bias.detach().numpy().astype(np.float64)
    whole, steps = (one.double().numpy() for one in whole_weights(net[0].weight, "paired"))
    integers, scales = whole.reshape(4, 3), steps
    given = pixels.int_repr().numpy().astype(np.int64) - pixels.q_zero_point()
    sums = np.einsum("oc,nchw->nohw", integers.astype(np.int64), given)
    real = sums * (scales * pixels.q_scale())[None, :, None, None] + bias[None, :, None, None]
    expected = np.clip(np.rint(real / result.q_scale()) + result.q_zero_point(), 0, 255)
    assert np.abs(result.int_repr().numpy().astype(int) - expected).max() <= 1
    assert result.q_zero_point() == 0


def test_the_observer_decides_the_ranges(attempt: Attempt, module: Deployed) -> None:
    sets = tuning_by(module, images, 12, 8)
    whole, clipped = (ranges_of(replace(attempt, observer=name), sets) for name in ("min-max", "least squared error"))
    assert set(whole) == set(clipped)
    assert all(
        whole[name][0] - 1e-6 <= clipped[name][0] and clipped[name][1] <= whole[name][1] + 1e-6 for name in whole
    )
    assert whole != clipped


def test_an_argument_changed_in_place_is_read_as_changed() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pixels = x.permute(0, 3, 1, 2).to(torch.float32) - 100
            after = pixels.relu_()
            return (pixels + after.mean()).mean((2, 3))

    graph = flatten(Net(), 8, 8)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    (relu,) = [node for node in graph.graph.nodes if "relu" in str(node.target)]
    assert len(relu.users) == 2
    assert torch.equal(graph(batch), Net()(batch))


def test_a_network_that_computes_with_its_batch_size_is_refused(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x).mean((2, 3)) / x.shape[0]

    module = Deployed(Net(), Preprocess(height=8, width=8)).eval()
    attempt = Attempt("min-max", Source(flatten(module, 8, 8), 8, 8, tmp_path), "min-max")
    batch = images(4)[:, :8, :8]
    sets = TuningSet(batch, batch, np.zeros(4, np.int64), eager(module, batch), Yardstick(1.0), 1)
    with pytest.raises(UserError, match="computes with its batch size"):
        torchscript.QUANTIZER.write(attempt, sets, tmp_path)


class TestOtherProcessors:
    @pytest.mark.parametrize(("grid", "warned"), [("paired", False), ("full", True)])
    def test_a_file_for_vnni_says_so_elsewhere(
        self,
        attempt: Attempt,
        module: Deployed,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        grid: Any,
        warned: bool,
    ) -> None:
        session = opened(replace(attempt, grid=grid), module, tmp_path / "out")
        monkeypatch.setattr(platform, "machine", lambda: session._facts["machine"])
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
        assert not any("saturate" in remark for remark in session.executed().remarks)
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setitem(session._facts, "machine", "x86_64")
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
        assert any("may saturate" in remark for remark in session.executed().remarks) == warned
        assert session._facts["grid"] == grid
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        assert any("written for x86_64 and runs on aarch64" in remark for remark in session.executed().remarks)

    def test_another_engine_of_torchs_answers_alike(self, attempt: Attempt, module: Deployed, tmp_path: Path) -> None:
        engine = torch.backends.quantized.engine
        if "qnnpack" not in torch.backends.quantized.supported_engines:
            pytest.skip("this torch has no second engine for int8")
        opened(attempt, module, tmp_path / "out")
        torch.backends.quantized.engine = "qnnpack"
        try:
            session = open_file(tmp_path / "out" / torchscript.MAIN, "pytorch", "int8", 1)
            assert error(session.run(images(4, 200)), eager(module, images(4, 200))) < 0.25
        finally:
            torch.backends.quantized.engine = engine


def test_fp32_is_counted_once_its_size_is_known(module: Deployed, tmp_path: Path) -> None:
    converted = formats.convert("torchscript", Source(module, SIZE, SIZE, tmp_path), "fp32", tmp_path / "out")
    session = open_file(tmp_path / "out" / converted.files[0], "pytorch", "fp32", 1)
    session.run(images(2))
    report = session.executed()
    assert report.mac_shares == {"fp32": 1.0}
    pixels = (SIZE // 2) ** 2
    assert [layer.macs for layer in report.layers] == [216 * pixels, 72 * pixels, 64, 16 * pixels, 48]


def test_the_file_carries_what_the_runtime_must_know(attempt: Attempt, module: Deployed, tmp_path: Path) -> None:
    facts = opened(attempt, module, tmp_path / "out")._facts
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["height"], facts["width"]) == (SIZE, SIZE)
    assert facts["machine"] == platform.machine()


@pytest.mark.shared
@pytest.mark.slow
def test_real_weights_keep_their_decisions(shared: Path, tmp_path: Path) -> None:
    """MobileNetV2 on ImageNet images: int8 but for the classifier, and on 85 of 100 the decision of fp32."""
    real = mobilenet_v2(shared, tmp_path)
    (tmp_path / "out").mkdir()
    attempt = Attempt("p", real.source, "percentile 99.99")
    files = torchscript.QUANTIZER.write(attempt, real.tuning, tmp_path / "out")
    session = open_file(tmp_path / "out" / files[0], "pytorch", "int8", 1)
    assert (session.run(real.images).argmax(1) == real.logits.argmax(1)).mean() >= 0.85
    report = session.executed()
    classifier = 1280 * 1000 / MACS
    assert report.mac_shares == pytest.approx({"int8": 1 - classifier, "fp32": classifier})
    assert sum(layer.macs for layer in report.layers) == MACS
