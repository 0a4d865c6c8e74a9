"""A timm or torchvision classification network by name, with our head, and weights from hub, file, package or none."""

from __future__ import annotations

import difflib
import itertools
import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import safetensors.torch
import timm
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from edgecnn.artifact import Preprocess, sha256_of_file
from edgecnn.checkpoint import WEIGHTS, Checkpoint, Leftovers, read_checkpoint
from edgecnn.errors import UserError, must_be_file, not_one_of

State: TypeAlias = dict[str, Tensor]

EMBEDDED = {"edgecnn_mobilenetv2_035": ("mobilenetv2_035", 96, "mobilenetv2_035_surfaces_96.safetensors")}
"""Backbones that ship with the package: our name to timm's name, input size in pixels, file in edgecnn/weights."""

_WEIGHTS_FOLDER = Path(__file__).parent / "weights"
_BATCH_NORM = nn.modules.batchnorm._BatchNorm

_TWINS = {
    "timm:mobilenetv2_100": "torchvision:mobilenet_v2",
    "timm:mobilenetv3_small_100": "torchvision:mobilenet_v3_small",
    "timm:mobilenetv3_large_100": "torchvision:mobilenet_v3_large",
}
"""The same network under both libraries' names. (ResNets have the same tensor names in both and need no entry.)

A pair belongs here once tests/test_models.py shows that its logits are equal after mapping.
"""
_TWIN_OF = {**_TWINS, **{theirs: ours for ours, theirs in _TWINS.items()}}

_HEAD_STD = 0.01
"""Standard deviation of a new head's weights, as in torchvision's MobileNets."""

_AUXILIARY = {"googlenet", "inception_v3"}
"""torchvision networks with a second head that is used in training only: built without it."""
_HEAD_WORDS = {"classifier", "fc", "head", "heads", "head_dist", "last_linear", "aux1", "aux2", "AuxLogits"}
"""First parts of names under which a weights file may hold heads that are not ours."""
_CONTAINERS = {
    "features",
    "layers",
    "blocks",
    "stages",
    "encoder",
    "trunk",
    "trunk_output",
    "backbone",
    "body",
    "model",
}
"""Modules that hold a sequence of stages rather than being one."""


@dataclass(frozen=True)
class Built:
    """A network with a head for the wanted classes, and what is known of its weights."""

    module: nn.Module
    name: str
    """With its library, such as timm:mobilenetv2_100: `build` takes it again."""
    preprocess: Preprocess
    """The input size and normalisation that the weights were trained with."""
    weights: str
    """For the record: hub:…, file:… with hash, embedded:…, or none."""
    leftovers: Leftovers
    batchnorm_eps: float | None
    """Set where the weights want another BatchNorm epsilon than the network is built with (and now has)."""


@dataclass(frozen=True)
class Stage:
    """A part of a network between input and output: the unit of freezing and of learning rates."""

    name: str
    modules: tuple[nn.Module, ...]
    """Every module of the stage, containers and their leaves."""
    parameters: tuple[nn.Parameter, ...]


@dataclass(frozen=True)
class _Architecture:
    library: Literal["timm", "torchvision"]
    name: str
    tag: str = ""
    """timm's name for a set of hub weights."""
    size: int | None = None
    """Input size in pixels that our own weights were trained at; None: as the library says."""
    public: str = ""

    @property
    def full(self) -> str:
        return self.public or f"{self.library}:{self.name}"


@dataclass(frozen=True)
class _Naming:
    """A library's order and names of a network's tensors."""

    architecture: _Architecture
    keys: tuple[str, ...]
    """Of the backbone, in module order."""
    head: tuple[str, ...]
    eps: float | None


def build(
    name: str,
    classes: int,
    weights: str | Path | None = None,
    *,
    keep_head: bool = False,
    dropout: float | None = None,
    size: int | None = None,
) -> Built:
    """A network by name with a head for `classes` classes.

    `name`: any timm or torchvision classification network, `timm:` or `torchvision:` before it where both know it
    (else timm's), or one of EMBEDDED. `weights`: "hub" (the library's pretrained ones), "embedded", "none" (random),
    or a .safetensors, .pth or .pt file with timm's or torchvision's tensor names; None: embedded where there are such,
    else hub. `keep_head` keeps the weights' own head. `dropout` before the head; None: as the library builds it.
    `size` in pixels matters here only to networks whose weights depend on it (vision transformers).

    Raises UserError: unknown name, hub out of reach, a file that is not weights of this network, a head of another
    number of classes with `keep_head`.
    """
    architecture = _find(name)
    if weights is None:
        weights = "embedded" if architecture.full in EMBEDDED else "hub"
    module = _create(architecture, classes, dropout, size)
    if weights == "none":
        if keep_head:
            raise UserError(f"{name}: random weights have no head to keep: give --weights FILE or another recipe")
        return Built(module, architecture.full, _preprocess(architecture, size), "none", Leftovers(), None)
    state, description = _read_weights(architecture, weights)
    naming, leftovers = _load(module, architecture, state, keep_head, description.split(" ")[0])
    eps = _adopt_eps(module, naming.eps)
    preprocess = _preprocess(architecture, size)
    if naming.architecture != architecture:
        theirs = _preprocess(naming.architecture, size)
        preprocess = preprocess.model_copy(update={"mean": theirs.mean, "std": theirs.std})
    return Built(module, architecture.full, preprocess, description, leftovers, eps)


def load_module(folder: Path) -> tuple[Checkpoint, nn.Module]:
    """A checkpoint folder to its description and network in eval mode. Raises UserError where it is damaged."""
    checkpoint = read_checkpoint(folder)
    module = _create(_find(checkpoint.model), len(checkpoint.classes), None, checkpoint.preprocess.height)
    try:
        module.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: not weights of {checkpoint.model}: {_first_line(error)}") from None
    _adopt_eps(module, checkpoint.batchnorm_eps)
    return checkpoint, module.eval()


def save_module(module: nn.Module) -> bytes:
    """The bytes of weights.safetensors: every parameter and buffer, float32, the same bytes for the same values."""
    return safetensors.torch.save({key: value.contiguous() for key, value in module.state_dict().items()})


class Deployed(nn.Module):
    """The network as it is exported: uint8 (n, h, w, 3) RGB in, logits float32 (n, classes) out. Stays in eval mode."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.module = module
        mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1)
        std = torch.tensor(preprocess.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Deployed:
        """Training mode would change what is exported: the mode is eval whatever is asked."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) RGB to logits (n, classes)."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        logits: Tensor = self.module((pixels / 255 - self.mean) / self.std)
        return logits


def head_of(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and layer of the classifier: the last linear layer or 1×1 convolution (squeezenet)."""
    classifier: Any = getattr(module, "get_classifier", None)  # timm's
    if classifier is not None:
        layer = classifier()
        for name, candidate in module.named_modules():
            if candidate is layer and isinstance(candidate, nn.Linear | nn.Conv2d):
                return name, candidate
    else:
        for name, candidate in reversed(list(module.named_modules())):
            if isinstance(candidate, nn.Linear | nn.Conv2d):
                return name, candidate
    raise UserError(
        f"{type(module).__name__} has no single linear or 1×1 convolutional classifier: choose another --model"
    )


def dropout_of(module: nn.Module) -> float:
    """Probability of the dropout before the head; 0 where there is none."""
    rate = getattr(module, "drop_rate", None)  # timm's
    if rate is not None:
        return float(rate)
    layers = _head_dropouts(module)
    return layers[-1].p if layers else 0.0


def stages(module: nn.Module) -> list[Stage]:
    """The network's stages from input to output: stem, blocks …, and last the head, which is the classifier alone.

    Found by structure: children in order, containers such as `features` and `blocks` opened, a normalisation layer
    joined to what it follows. Parameters outside any module (class token, position embedding) belong to the stem.
    Every parameter is in exactly one stage.
    """
    head_name, head = head_of(module)
    stem: list[nn.Parameter] = []
    parts: list[tuple[str, list[nn.Module]]] = []
    for name, unit in _units(module, "", head, stem):
        if parts and not _starts_a_stage(unit):
            parts[-1][1].append(unit)
        else:
            parts.append((name, [unit]))
    found = [_stage(name, units) for name, units in parts]
    if stem and found:
        found[0] = replace(found[0], parameters=(*stem, *found[0].parameters))
    return [*found, _stage(head_name, [head])]


def _stage(name: str, units: Sequence[nn.Module]) -> Stage:
    modules = tuple(itertools.chain.from_iterable(unit.modules() for unit in units))
    parameters = tuple(itertools.chain.from_iterable(unit.parameters() for unit in units))
    return Stage(name, modules, parameters)


def _units(
    module: nn.Module, prefix: str, head: nn.Module, stem: list[nn.Parameter]
) -> Iterator[tuple[str, nn.Module]]:
    """Children in order, containers and what holds the head opened; parameters of what is opened go to `stem`."""
    stem += module.parameters(recurse=False)
    for name, child in module.named_children():
        if child is head:
            continue
        opened = name in _CONTAINERS and any(True for _ in child.children())
        if opened or any(part is head for part in child.modules()):
            yield from _units(child, f"{prefix}{name}.", head, stem)
        else:
            yield f"{prefix}{name}", child


def _starts_a_stage(unit: nn.Module) -> bool:
    """Whether it holds a layer with weights of two or more dimensions: norms, activations and dropout do not."""
    return any(parameter.ndim >= 2 for parameter in unit.parameters())


def _find(name: str) -> _Architecture:
    library, _, rest = name.rpartition(":")
    if name in EMBEDDED:
        timm_name, size, _ = EMBEDDED[name]
        return _Architecture("timm", timm_name, size=size, public=name)
    if library not in ("", "timm", "torchvision"):
        raise not_one_of("model", f"{library}:", "timm:, torchvision:")
    architecture, _, tag = rest.partition(".")
    if library != "torchvision" and timm.is_model(rest):
        return _Architecture("timm", architecture, tag)
    if library != "timm" and rest in _torchvision_names():
        return _Architecture("torchvision", rest)
    raise not_one_of("model", name, _suggestions(rest, library))


def _suggestions(name: str, library: str) -> str:
    known = [*EMBEDDED] if not library else []
    if library != "torchvision":
        known += timm.list_models()
    if library != "timm":
        known += [f"torchvision:{known_name}" for known_name in _torchvision_names()]
    bare = {entry.rpartition(":")[2].replace("_", ""): entry for entry in reversed(known)}
    close = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), bare, n=5, cutoff=0.5)
    shown = ", ".join(bare[match] for match in close) if close else "mobilenetv2_100, resnet18, efficientnet_b0"
    return f"timm's {len(timm.list_models())} or torchvision's {len(_torchvision_names())} networks; close: {shown}"


def _torchvision_names() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def _create(architecture: _Architecture, classes: int, dropout: float | None, size: int | None) -> nn.Module:
    """The network with random weights, those of the head small."""
    create = _create_timm if architecture.library == "timm" else _create_torchvision
    module = create(architecture, classes, dropout, size)
    # Some of timm's networks draw the head from ±1/√classes: for few classes a loss of 6 to begin with.
    _, head = head_of(module)
    nn.init.normal_(head.weight, std=_HEAD_STD)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return module


def _create_timm(architecture: _Architecture, classes: int, dropout: float | None, size: int | None) -> nn.Module:
    arguments: dict[str, Any] = {}
    if dropout is not None:
        arguments["drop_rate"] = dropout
    if size is not None and timm.get_pretrained_cfg(architecture.name).fixed_input_size:
        arguments["img_size"] = size
    try:
        module: nn.Module = timm.create_model(architecture.name, num_classes=classes, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(f"{architecture.full}: timm cannot build it with {arguments}: {_first_line(error)}") from None
    return module


def _create_torchvision(
    architecture: _Architecture, classes: int, dropout: float | None, size: int | None
) -> nn.Module:
    arguments: dict[str, Any] = {}
    if architecture.name in _AUXILIARY:
        arguments = {"aux_logits": False, "init_weights": True}
    if size is not None and architecture.name.startswith("vit_"):
        arguments["image_size"] = size
    try:
        module: nn.Module = torchvision.models.get_model(
            architecture.name, weights=None, num_classes=classes, **arguments
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{architecture.full}: torchvision cannot build it: {_first_line(error)}") from None
    if dropout is not None:
        _set_dropout(module, architecture, dropout)
    return module


def _set_dropout(module: nn.Module, architecture: _Architecture, dropout: float) -> None:
    layers = _head_dropouts(module)
    if not layers:
        raise UserError(
            f"{architecture.full} has no dropout before its head: leave --dropout out, or take it from timm:"
        )
    layers[-1].p = dropout


def _head_dropouts(module: nn.Module) -> list[nn.Dropout]:
    top = head_of(module)[0].partition(".")[0]
    return [layer for layer in module.get_submodule(top).modules() if isinstance(layer, nn.Dropout)]


def _preprocess(architecture: _Architecture, size: int | None) -> Preprocess:
    """Input size, mean and standard deviation of the library's pretrained weights; the whole image, stretched."""
    if architecture.library == "timm":
        name = f"{architecture.name}.{architecture.tag}" if architecture.tag else architecture.name
        config = timm.get_pretrained_cfg(name)
        native, mean, std = config.input_size[1], config.mean, config.std
    else:
        preset = torchvision.models.get_model_weights(architecture.name).DEFAULT.transforms()
        native, mean, std = preset.crop_size[0], preset.mean, preset.std
    side = size or architecture.size or int(native)
    return Preprocess(height=side, width=side, mean=_three(mean), std=_three(std))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _read_weights(architecture: _Architecture, weights: str | Path) -> tuple[State, str]:
    """Tensors by name, and what to record of where they come from."""
    if weights == "hub":
        return _read_hub(architecture)
    if weights == "embedded":
        if architecture.full not in EMBEDDED:
            raise not_one_of("model with --weights embedded", architecture.full, EMBEDDED)
        path = _WEIGHTS_FOLDER / EMBEDDED[architecture.full][2]
        must_be_file(path, "the weights that come with edgecnn: install it again")
        return _read_file(path), f"embedded:{path.stem} sha256:{sha256_of_file(path)}"
    path = Path(weights)
    must_be_file(path, "weights: a .safetensors, .pth or .pt file, hub, embedded or none")
    return _read_file(path), f"file:{path.name} sha256:{sha256_of_file(path)}"


def _read_hub(architecture: _Architecture) -> tuple[State, str]:
    full = f"{architecture.name}.{architecture.tag}" if architecture.tag else architecture.name
    try:
        with _quick_when_offline():
            if architecture.library == "timm":
                module = timm.create_model(full, pretrained=True)
                return dict(module.state_dict()), f"hub:timm/{architecture.name}.{module.pretrained_cfg['tag']}"
            entry = torchvision.models.get_model_weights(architecture.name).DEFAULT
            state = entry.get_state_dict(progress=False, check_hash=True)
            return dict(state), f"hub:torchvision/{architecture.name}.{entry.name}"
    except Exception as error:
        # requests, httpx, urllib, huggingface_hub and torch.hub raise unrelated classes for the same thing.
        if "No pretrained weights" in str(error):
            raise UserError(f"{architecture.full} has no weights on the hub: pass --weights FILE or none") from None
        raise UserError(
            f"{architecture.full}: its pretrained weights cannot be fetched, the hub cannot be reached from here "
            f"({type(error).__name__}): pass --weights FILE, or --weights none for random ones"
        ) from None


@contextmanager
def _quick_when_offline() -> Iterator[None]:
    """huggingface_hub retries for 50 s, with a line each, where a host name cannot even be resolved: spare the wait."""
    import huggingface_hub

    logger = logging.getLogger("huggingface_hub")
    constants: Any = huggingface_hub.constants
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or not _can_resolve(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)


def _can_resolve(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True
    try:
        socket.getaddrinfo(endpoint.partition("://")[2].partition("/")[0].partition(":")[0], 443)
    except OSError:
        return False
    return True


def _read_file(path: Path) -> State:
    if path.suffix == ".safetensors":
        try:
            return dict(safetensors.torch.load_file(path))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable .safetensors file: {_first_line(error)}") from None
    if path.suffix not in (".pth", ".pt"):
        raise not_one_of(f"{path}: ending", path.suffix, [".safetensors", ".pth", ".pt"])
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds Python objects or code, not only tensors: refused. "
            "Save its state_dict, best as .safetensors, where you trust the file"
        ) from None
    except Exception as error:  # a damaged file leads PyTorch's reader to whatever
        raise UserError(f"{path}: not a readable PyTorch file ({type(error).__name__}: {_first_line(error)})") from None
    return _unwrap(loaded, path)


def _unwrap(loaded: object, path: Path) -> State:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds {type(loaded).__name__}, not tensors by name: save the state_dict")
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _load(
    module: nn.Module, architecture: _Architecture, state: State, keep_head: bool, where: str
) -> tuple[_Naming, Leftovers]:
    """Copy the whole backbone from `state`, under this library's tensor names or its twin's, and the head if asked."""
    ours = _naming(architecture, module)
    namings = [ours]
    twin = _TWIN_OF.get(f"{architecture.library}:{architecture.name}")
    if twin:
        # A .safetensors file does not keep the order of its tensors: the twin, built, gives it back.
        namings.append(_naming(_find(twin), _create(_find(twin), 2, None, None)))
    theirs = max(namings, key=lambda naming: len(set(naming.keys) & set(state)))
    target = module.state_dict()
    _refuse_misfits(ours, theirs, target, state, f"{where}: not weights of {architecture.full}")
    fresh = {key: _like(state[name], target[key]) for key, name in zip(ours.keys, theirs.keys, strict=True)}
    head = {key: state[name] for key, name in zip(ours.head, theirs.head, strict=True) if name in state}
    if keep_head:
        _refuse_other_head(head, target, where)
        fresh |= {key: _like(value, target[key]) for key, value in head.items()}
    module.load_state_dict(fresh, strict=False)
    known = {*theirs.keys} | ({*theirs.head} if keep_head else set())
    leftovers = Leftovers(
        missing=() if keep_head else ours.head,
        unexpected=tuple(key for key in state if key not in known and not _is_counter(key)),
    )
    return theirs, leftovers


def _naming(architecture: _Architecture, module: nn.Module) -> _Naming:
    name, _ = head_of(module)
    keys = [key for key in module.state_dict() if not _is_counter(key)]
    head = tuple(key for key in keys if key.rpartition(".")[0] == name)
    eps = {layer.eps for layer in module.modules() if isinstance(layer, _BATCH_NORM)}
    return _Naming(
        architecture, tuple(key for key in keys if key not in head), head, eps.pop() if len(eps) == 1 else None
    )


def _refuse_misfits(ours: _Naming, theirs: _Naming, target: State, state: State, problem: str) -> None:
    if len(ours.keys) != len(theirs.keys):
        raise UserError(f"{problem}: {theirs.architecture.full} has another number of tensors")
    pairs = list(zip(ours.keys, theirs.keys, strict=True))
    misfits = [(key, name) for key, name in pairs if not _fits(key, target[key], name, state.get(name))]
    if misfits:
        key, name = misfits[0]
        got = f"the file has {tuple(state[name].shape)}" if name in state else "the file has no such tensor"
        raise UserError(
            f"{problem}: {len(pairs) - len(misfits)} of {len(pairs)} tensors fit; the first that does not: "
            f"{name} should be {tuple(target[key].shape)}, {got}: give the file of this network, or another --model"
        )
    extra = [key for key in state if key not in {*theirs.keys, *theirs.head} and not _is_counter(key)]
    extra = [key for key in extra if key.partition(".")[0] not in _HEAD_WORDS]
    if extra:
        raise UserError(f"{problem}: all {len(pairs)} tensors fit, but it has {len(extra)} more, the first {extra[0]}")


def _fits(key: str, wanted: Tensor, name: str, got: Tensor | None) -> bool:
    """Same kind of tensor (weight, bias, running_mean …) and same shape, a linear layer being a 1×1 convolution."""
    same_kind = key.rpartition(".")[2] == name.rpartition(".")[2]
    return got is not None and same_kind and _squeezed(wanted.shape) == _squeezed(got.shape)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without the 1s at its end."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _refuse_other_head(head: State, target: State, where: str) -> None:
    if not head:
        raise UserError(f"{where}: has no head to keep: recipe none needs one; choose another --recipe")
    for key, value in head.items():
        if _squeezed(value.shape) != _squeezed(target[key].shape):
            raise UserError(
                f"{where}: its head has {value.shape[0]} outputs, the data {target[key].shape[0]} classes: recipe none "
                "keeps the head, so they must be equal; choose another --recipe"
            )


def _like(value: Tensor, target: Tensor) -> Tensor:
    return value.reshape(target.shape).to(target.dtype)


def _is_counter(key: str) -> bool:
    """BatchNorm's count of batches, which nothing depends on here."""
    return key.endswith("num_batches_tracked")


def _adopt_eps(module: nn.Module, eps: float | None) -> float | None:
    """Set BatchNorm's epsilon where the weights were trained with another; return it if anything changed."""
    changed = False
    for layer in module.modules():
        if isinstance(layer, _BATCH_NORM) and eps is not None and layer.eps != eps:
            layer.eps = eps
            changed = True
    return eps if changed else None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
