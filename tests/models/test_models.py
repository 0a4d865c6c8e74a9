"""Networks by name: heads, weights from everywhere, both libraries' tensor names, stages, the deployed form."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

import edgecnn.models.weights
from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError
from edgecnn.models import EMBEDDED, Deployed, build, head_of, stages

SMALL = "timm:mobilenetv2_035"

PAIRS = [
    ("torchvision:mobilenet_v2", "timm:mobilenetv2_100"),
    ("torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_100"),
    ("torchvision:mobilenet_v3_large", "timm:mobilenetv3_large_100"),
    ("torchvision:resnet18", "timm:resnet18"),
    ("torchvision:resnet50", "timm:resnet50"),
]
FAMILIES = [
    *(name for pair in PAIRS[:4] for name in pair),
    "torchvision:squeezenet1_1",
    "timm:efficientnet_b0",
    "torchvision:efficientnet_b0",
    "timm:convnext_atto",
    "torchvision:convnext_tiny",
    "timm:vit_tiny_patch16_224",
    "torchvision:vit_b_16",
    "torchvision:densenet121",
    "torchvision:shufflenet_v2_x0_5",
    "timm:edgenext_xx_small",
]


def with_lived_in_norms(name: str, classes: int) -> nn.Module:
    """A random network whose BatchNorm statistics and scales are no longer those of initialisation."""
    torch.manual_seed(3)
    module = build(name, classes, "none").module.eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            # Variances small enough that another epsilon shows in the logits.
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.01, 0.5)
            nn.init.uniform_(layer.weight, 0.2, 0.6)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return module


def saved(state: dict[str, Tensor], path: Path) -> Path:
    safetensors.torch.save_file({key: value.clone().contiguous() for key, value in state.items()}, path)
    return path


def logits(module: nn.Module) -> Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        result: Tensor = module.eval()(images)
    return result


@pytest.mark.parametrize(("theirs", "ours"), [*PAIRS, *((b, a) for a, b in PAIRS)])
def test_weights_under_the_other_librarys_names_give_equal_logits(theirs: str, ours: str, tmp_path: Path) -> None:
    source = with_lived_in_norms(theirs, 7)
    built = build(ours, 7, saved(source.state_dict(), tmp_path / "other.safetensors"), keep_head=True)
    torch.testing.assert_close(logits(built.module), logits(source), atol=1e-4, rtol=1e-4)
    assert built.leftovers.missing == ()
    assert built.leftovers.unexpected == ()


def test_the_epsilon_of_the_weights_is_adopted_and_recorded(tmp_path: Path) -> None:
    source = with_lived_in_norms("torchvision:mobilenet_v3_small", 3)
    built = build("timm:mobilenetv3_small_100", 3, saved(source.state_dict(), tmp_path / "v3.safetensors"))
    assert built.batchnorm_eps == 1e-3
    assert {layer.eps for layer in built.module.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-3}
    own = build("torchvision:mobilenet_v3_small", 3, tmp_path / "v3.safetensors")
    assert own.batchnorm_eps is None


def test_the_normalisation_is_that_of_the_weights(tmp_path: Path) -> None:
    """A network of timm with mean 0.5 must not be fed torchvision's normalisation, and the other way round."""
    tf = build("timm:tf_mobilenetv3_small_100", 3, "none")
    assert tf.preprocess.mean == (0.5, 0.5, 0.5)
    assert build("torchvision:mobilenet_v2", 3, "none").preprocess == Preprocess(height=224, width=224)
    assert build(SMALL, 3, "none", size=96).preprocess.height == 96


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_hold_every_parameter_once_and_the_head_last(name: str) -> None:
    with torch.device("meta"):
        module = build(name, 3, "none").module
    found = stages(module)
    held = [id(parameter) for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in module.parameters())
    assert len(found) >= 5
    head_name, head = head_of(module)
    assert found[-1].name == head_name
    assert found[-1].modules == (head,)
    assert head.weight.shape[0] == 3
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm)]
    staged = {id(part) for stage in found for part in stage.modules}
    assert all(id(norm) in staged for norm in norms)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_follow_the_flow(name: str) -> None:
    """The stem sees the image: it holds the first layer that runs."""
    with torch.device("meta"):
        module = build(name, 3, "none").module.eval()
    ran: list[nn.Module] = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, *_: ran.append(layer))
    side = 224 if "vit" in name else 64
    with torch.no_grad():
        module(torch.zeros(1, 3, side, side, device="meta"))
    order = {id(part): number for number, stage in enumerate(stages(module)) for part in stage.modules}
    numbers = [order[id(layer)] for layer in ran]
    assert numbers == sorted(numbers)
    assert ran[-1] is head_of(module)[1]


def test_an_unprefixed_name_is_timms_where_timm_knows_it() -> None:
    assert build("resnet18", 2, "none").name == "timm:resnet18"
    assert build("squeezenet1_1", 2, "none").name == "torchvision:squeezenet1_1"
    assert build("resnet18.a1_in1k", 2, "none").name == "timm:resnet18"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilnetv2", "mobilenet_v2"),
        ("torchvision:mobilenetv2", "torchvision:mobilenet_v2"),
        ("keras:resnet50", "is not one of timm:, torchvision:"),
        ("qqqqqqqq", "is not one of"),
    ],
)
def test_an_unknown_name_gets_close_ones(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name, 2, "none")


def test_dropout_before_the_head() -> None:
    assert edgecnn.models.dropout_of(build(SMALL, 2, "none", dropout=0.3).module) == 0.3
    assert edgecnn.models.dropout_of(build("torchvision:mobilenet_v2", 2, "none", dropout=0.4).module) == 0.4
    with pytest.raises(UserError, match="has no dropout before its head"):
        build("torchvision:resnet18", 2, "none", dropout=0.3)


def test_a_new_head_and_the_old_one_are_reported(tmp_path: Path) -> None:
    source = build(SMALL, 9, "none").module
    built = build(SMALL, 4, saved(source.state_dict(), tmp_path / "nine.safetensors"))
    assert built.leftovers.missing == ("classifier.weight", "classifier.bias")
    assert sorted(built.leftovers.unexpected) == ["classifier.bias", "classifier.weight"]
    assert torch.equal(built.module.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"])
    assert built.weights.startswith("file:nine.safetensors sha256:")


@pytest.mark.parametrize("name", [SMALL, "torchvision:resnet18", "torchvision:squeezenet1_1"])
def test_a_new_head_starts_small(name: str) -> None:
    """So that the first loss is that of a guess, and the first steps do not tear the backbone apart."""
    _, head = head_of(build(name, 3, "none").module)
    assert 0 < float(head.weight.detach().abs().max()) < 0.1
    assert head.bias is not None
    assert not head.bias.detach().any()


def test_half_precision_weights_without_a_head_are_taken(tmp_path: Path) -> None:
    state = build(SMALL, 2, "none").module.state_dict()
    half = {key: value.half() for key, value in state.items() if not key.startswith("classifier")}
    built = build(SMALL, 4, saved(half, tmp_path / "half.safetensors"))
    assert {parameter.dtype for parameter in built.module.parameters()} == {torch.float32}
    assert built.leftovers.unexpected == ()


def test_the_own_head_is_kept_only_if_it_fits(tmp_path: Path) -> None:
    source = build(SMALL, 9, "none").module
    path = saved(source.state_dict(), tmp_path / "nine.safetensors")
    assert torch.equal(logits(build(SMALL, 9, path, keep_head=True).module), logits(source))
    with pytest.raises(UserError, match="its head has 9 outputs, the data 4 classes"):
        build(SMALL, 4, path, keep_head=True)
    with pytest.raises(UserError, match="no head to keep"):
        build(SMALL, 4, "none", keep_head=True)
    backbone = {key: value for key, value in source.state_dict().items() if "classifier" not in key}
    with pytest.raises(UserError, match="has no head to keep"):
        build(SMALL, 4, saved(backbone, tmp_path / "backbone.safetensors"), keep_head=True)


def test_a_wrong_weights_file_is_refused_by_its_first_misfit(tmp_path: Path) -> None:
    path = saved(build("timm:mobilenetv2_050", 3, "none").module.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"\d+ of 260 tensors fit; .* should be \(.*\), the file has \("):
        build(SMALL, 3, path)
    path = saved({"a": torch.zeros(2)}, tmp_path / "strange.safetensors")
    with pytest.raises(UserError, match=r"0 of 260 tensors fit; .*conv_stem.weight should be .* has no such tensor"):
        build(SMALL, 3, path)
    state = build(SMALL, 3, "none").module.state_dict()
    path = saved({**state, "blocks.7.0.conv.weight": torch.zeros(2)}, tmp_path / "deeper.safetensors")
    with pytest.raises(UserError, match=r"has 1 more, the first blocks\.7"):
        build(SMALL, 3, path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorch_files_are_unwrapped(wrap: Any, prefix: str, tmp_path: Path) -> None:
    state = build(SMALL, 3, "none").module.state_dict()
    torch.save(wrap({prefix + key: value for key, value in state.items()}), tmp_path / "weights.pth")
    built = build(SMALL, 3, tmp_path / "weights.pth")
    assert torch.equal(built.module.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harm",))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "weights.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful()))
    torch.save(timm.create_model("mobilenetv2_035", num_classes=2), tmp_path / "module.pth")
    for name in ("weights.pt", "plain.pth", "module.pth"):
        with pytest.raises(UserError, match="refused") as caught:
            build(SMALL, 3, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"no", "not a readable .safetensors file"),
        ("a.pth", b"", "a.pth: is empty"),
        ("a.onnx", b"", r"'.onnx' is not one of .safetensors, .pth, .pt, .ckpt, .bin, .pth.tar"),
    ],
)
def test_files_that_are_no_weights(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        build(SMALL, 2, tmp_path / name)


def test_a_missing_file_and_a_tensor_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        build(SMALL, 2, tmp_path / "none.safetensors")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="holds Tensor, not tensors by name"):
        build(SMALL, 2, tmp_path / "tensor.pth")


class Unreachable(Exception):
    """Stands for httpx's and requests' own classes, which are no OSError."""


@pytest.mark.parametrize("name", [SMALL, "torchvision:mobilenet_v2"])
@pytest.mark.parametrize("error", [OSError("no route"), Unreachable("name or service not known")])
def test_offline_the_hub_says_what_to_pass(name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def fail(*arguments: Any, **keywords: Any) -> Any:
        if name == SMALL and not keywords.get("pretrained"):
            return create(*arguments, **keywords)
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr(torchvision.models.MobileNet_V2_Weights, "get_state_dict", fail)
    monkeypatch.setattr(edgecnn.models.weights, "_can_resolve", lambda endpoint: False)
    with pytest.raises(UserError, match=r"hub cannot be reached .* --weights FILE, or --weights none") as caught:
        build(name, 2, "hub")
    assert "\n" not in str(caught.value)


def test_embedded_is_for_embedded_names_only() -> None:
    with pytest.raises(UserError, match="edgecnn_mobilenetv2_035"):
        build(SMALL, 2, "embedded")
    for name, (_, size, _) in EMBEDDED.items():
        assert build(name, 2, "none").preprocess.height == size


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_weights_fit(name: str) -> None:
    path = Path(edgecnn.__file__).parent / "weights" / EMBEDDED[name][2]
    if not path.is_file():
        pytest.skip(f"{path.name} is not in this checkout")
    built = build(name, 5)
    assert built.weights.startswith("embedded:")
    assert built.name == name
    assert built.leftovers.missing == ("classifier.weight", "classifier.bias")


def test_the_deployed_form_takes_uint8_and_stays_in_eval_mode() -> None:
    built = build(SMALL, 3, "none")
    deployed = Deployed(built.module, built.preprocess).train()
    assert not any(part.training for part in deployed.modules())
    images = torch.randint(0, 256, (2, 48, 32, 3), dtype=torch.uint8)
    mean, std = torch.tensor(built.preprocess.mean), torch.tensor(built.preprocess.std)
    by_hand = ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), built.module(by_hand))
    assert not [key for key in deployed.state_dict() if not key.startswith("module.")]


@pytest.mark.parametrize("images", [1, 32, 70])
def test_arrays_of_any_length_are_answered_as_tensors_are(images: int) -> None:
    built = build(SMALL, 3, "none")
    deployed = Deployed(built.module, built.preprocess)
    pixels = torch.randint(0, 256, (images, 32, 32, 3), dtype=torch.uint8)
    answers = deployed.answers(pixels.numpy())
    assert answers.shape == (images, 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(answers), deployed(pixels), atol=1e-5, rtol=1e-4)


@pytest.mark.shared
def test_real_weights_under_both_names_give_equal_logits(shared: Path) -> None:
    path = shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"
    own = build("torchvision:mobilenet_v2", 1000, path, keep_head=True)
    mapped = build("timm:mobilenetv2_100", 1000, path, keep_head=True)
    torch.testing.assert_close(logits(mapped.module), logits(own.module), atol=1e-4, rtol=1e-4)
    assert own.preprocess == mapped.preprocess
    with pytest.raises(UserError, match="not weights of timm:mobilenetv2_140"):
        build("timm:mobilenetv2_140", 1000, path)
    tf = shared / "weights" / "mobilenetv3_small" / "tf_mobilenetv3_small_100.safetensors"
    assert build("timm:tf_mobilenetv3_small_100", 6, tf).preprocess.mean == (0.5, 0.5, 0.5)
    squeeze = shared / "weights" / "squeezenet1_1" / "squeezenet1_1.safetensors"
    assert build("squeezenet1_1", 6, squeeze).leftovers.missing == ("classifier.1.weight", "classifier.1.bias")
