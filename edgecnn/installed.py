"""Libraries by the name that pip knows: whether one is here, in which version, and what to do where it is not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable

from edgecnn import __version__
from edgecnn.errors import MissingExtra

PREPARING = ("numpy", "Pillow", "simplejpeg", "pydantic")
"""What decodes and prepares an image and reads a bundle, on every device."""
TRAINING = ("torch", "torchvision", "timm", "safetensors", "fvcore", "lightning-fabric")
"""What fine-tuning and export need, whatever the target."""

_MODULES = {"Pillow": "PIL", "scikit-learn": "sklearn", "cuda-bindings": "cuda.bindings"}
"""Of libraries that are imported by another name than their own with underscores."""


def module_of(library: str) -> str:
    """What is imported of a library: ai-edge-litert is ai_edge_litert."""
    return _MODULES.get(library, library.replace("-", "_"))


def is_installed(library: str) -> bool:
    """Whether a library can be imported here (without importing it)."""
    module = module_of(library)
    package = module.partition(".")[0]
    return importlib.util.find_spec(package) is not None and (
        module == package or importlib.util.find_spec(module) is not None
    )


def need(extra: str, *libraries: str) -> None:
    """Raises MissingExtra for the first of `libraries` that is not installed."""
    for library in libraries:
        if not is_installed(library):
            raise MissingExtra(library, extra)


def need_training() -> None:
    """Raises MissingExtra where a library of the `train` extra is not installed."""
    need("train", *TRAINING)


def installed_versions(libraries: Iterable[str]) -> dict[str, str]:
    """edgecnn's version and those of the libraries that are installed, each under the name that was asked for.

    What another distribution provides, as onnxruntime-gpu does onnxruntime, has that one's name in its version.
    """
    found = {name: _version(name) for name in dict.fromkeys(libraries)}
    return {"edgecnn": __version__, **{name: version for name, version in found.items() if version is not None}}


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return _version_of_another(library) if is_installed(library) else None


def _version_of_another(library: str) -> str:
    package = module_of(library).partition(".")[0]
    others = sorted(set(importlib.metadata.packages_distributions().get(package, ())))
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in others) or "unknown"
