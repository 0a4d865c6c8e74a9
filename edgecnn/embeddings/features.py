"""What a backbone hands to its head, for every image of a folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edgecnn.artifact import Preprocess
from edgecnn.checkpoint import SPLIT, WEIGHTS
from edgecnn.data import SPLITS, Dataset, Item, Problem, load_folder, load_split
from edgecnn.data.depth import find_depth
from edgecnn.data.layout import EXPECTED
from edgecnn.data.walk import has_image_ending, listed, listing, refuse_no_folder
from edgecnn.documents import sha256_of, write_atomically
from edgecnn.errors import BadImage, UserError
from edgecnn.imaging import Preparer, read_encoded
from edgecnn.models import build, head_of, load_module
from edgecnn.progress import Progress
from edgecnn.train.progress import ProgressBar

Features = NDArray[np.float32]
"""(n, d)."""
THUMBNAIL = 32
"""Side in pixels of the grey pictures by which duplicates are confirmed."""
_BATCH = 32
_PROBE = Preprocess(height=32, width=32)
"""Any small size: the decoder reads the whole file whatever it is asked to return."""


@dataclass(frozen=True)
class Shown:
    """The images of a folder."""

    root: Path
    items: tuple[Item, ...]
    """Label -1 where the folder has no classes."""
    classes: tuple[str, ...]
    """Empty where it has none."""
    splits: tuple[str, ...]
    """Of each item: train, val, test; empty text without classes."""
    left_out: tuple[Problem, ...] = ()
    """Images that are not among the items, with the reason."""
    bits: int | None = None
    """For `Preprocess.bits`."""
    remarks: tuple[str, ...] = ()
    """What there is to say of parts and splits, a line each."""


@dataclass(frozen=True)
class Source:
    """The network whose features are taken."""

    module: nn.Module
    model: str
    weights: str
    preprocess: Preprocess
    remarks: tuple[str, ...] = ()
    """Which of several sets of weights was taken."""


@dataclass(frozen=True)
class Embedded:
    """Images and their features."""

    images: Shown
    features: Features
    thumbnails: NDArray[np.float32]
    """(n, 1024): grey, mean 0, length 1."""
    meta: dict[str, Any]


def from_model(model: str, weights: str | None, size: int | None, fit: str, weights_key: str | None = None) -> Source:
    """A network by name, random weights the same at every call. Raises UserError as `build` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build(model, 2, weights, size=size, weights_key=weights_key)
    preprocess = built.preprocess.model_copy(update={"fit": fit})
    return Source(built.module, built.name, built.weights, preprocess, built.remarks)


def from_checkpoint(run: Path) -> Source:
    """A network that was fine-tuned here. Raises UserError where the folder is damaged."""
    checkpoint, module = load_module(run)
    return Source(module, checkpoint.model, f"checkpoint:{checkpoint.files[WEIGHTS]}", checkpoint.preprocess)


def read_images(
    root: Path,
    *,
    seed: int = 0,
    good: str | None = None,
    skip_unreadable: bool = False,
    min_per_class: int = 0,
    group: str | None = None,
    looks: bool = True,
) -> Shown:
    """A folder of classes, or one that holds images and no folders. UserError: neither of them, unreadable images.

    `group`, `looks`: as of `edgecnn.data.load_folder`; without classes there are no splits, and so no parts to keep.
    """
    refuse_no_folder(root, f"images, or {EXPECTED}")
    inside = listing(root, root)
    flat = [] if inside.folders else [path for path in inside.files if has_image_ending(path)]
    if flat:
        return _unlabelled(root, flat, inside.problems, skip_unreadable)
    return _labelled(
        load_folder(
            root,
            seed=seed,
            good=good,
            skip_unreadable=skip_unreadable,
            min_per_class=min_per_class,
            group=group,
            looks=looks,
        )
    )


def images_of_run(root: Path, run: Path, progress: Progress = lambda text: None) -> Shown:
    """The images of a run, split as they were: in another split, some that it was trained on would judge it.

    Told to `progress`: images that lie elsewhere or under another class now.
    Raises UserError where an image is gone or its bytes changed.
    """
    return _labelled(load_split(root, run / SPLIT, progress))


def shown_features(images: Shown, source: Source, cache: Path | None, progress: ProgressBar) -> tuple[Embedded, int]:
    """Features and thumbnails of all images, and how many were computed rather than read from the cache."""
    if source.preprocess.bits is None:
        source = replace(source, preprocess=source.preprocess.model_copy(update={"bits": images.bits}))
    key = _network_hash(source) if cache else ""
    stored = [_cached(cache, key, item) for item in images.items]
    missing = [place for place, rows in enumerate(stored) if rows is None]
    preparer = Preparer(source.preprocess)
    progress.start(len(missing), "computing features")
    for start in range(0, len(missing), _BATCH):
        places = missing[start : start + _BATCH]
        prepared = [_prepared(images.items[place], preparer) for place in places]
        rows = features_of(source, np.stack([pixels for pixels, _ in prepared]))
        for place, row, (_, thumbnail) in zip(places, rows, prepared, strict=True):
            stored[place] = (row, thumbnail)
            if cache:
                _keep(cache, key, images.items[place], row, thumbnail)
        progress.advance(len(places))
    found = [rows for rows in stored if rows is not None]
    meta = {"model": source.model, "weights": source.weights, "preprocess": source.preprocess.model_dump(mode="json")}
    features, thumbnails = (np.stack([rows[which] for rows in found]) for which in (0, 1))
    return Embedded(images, features, thumbnails, meta), len(missing)


def features_of(source: Source, pixels: NDArray[np.uint8]) -> Features:
    """uint8 (n, h, w, 3) to what the head gets, float32 (n, d): a map is averaged over its places, tokens likewise."""
    given: list[Tensor] = []
    mean = torch.tensor(source.preprocess.mean).view(1, 3, 1, 1)
    std = torch.tensor(source.preprocess.std).view(1, 3, 1, 1)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    module = source.module.to(memory_format=torch.channels_last).eval()
    handle = head_of(module)[1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        with torch.no_grad():
            module(images.contiguous(memory_format=torch.channels_last))
    finally:
        handle.remove()
    found = given[0]
    if found.ndim == 4:
        found = found.mean(dim=(2, 3))
    elif found.ndim == 3:
        found = found.mean(dim=1)
    rows: Features = found.float().contiguous().numpy()
    return rows


def labels_of(images: Shown) -> NDArray[np.int64]:
    """int64 (n,)."""
    return np.array([item.label for item in images.items], np.int64)


def places_in(images: Shown, splits: Sequence[str]) -> NDArray[np.int64]:
    """Positions of the images of these splits."""
    return np.flatnonzero(np.isin(np.array(images.splits), list(splits)))


def _unlabelled(root: Path, flat: Sequence[Path], problems: Sequence[Problem], skip_unreadable: bool) -> Shown:
    preparer = Preparer(_PROBE)
    items: list[Item] = []
    unreadable = list(problems)
    peaks: dict[str, int] = {}
    for path in flat:
        try:
            encoded = read_encoded(path)
            _, peak = preparer.probe(encoded)
        except BadImage as error:
            unreadable.append(Problem(path.name, str(error)))
        except OSError as error:
            unreadable.append(Problem(path.name, f"cannot be read ({error.strerror})"))
        else:
            items.append(Item(path, path.name, -1, sha256_of(encoded)))
            if peak is not None:
                peaks[path.name] = peak
    depth = find_depth(peaks)
    unreadable += [Problem(name, reason) for name, reason in depth.unfit.items()]
    items = [item for item in items if item.name not in depth.unfit]
    if unreadable and not (skip_unreadable and items):
        raise UserError(
            f"{root}: {listed(unreadable)}: mend or remove, or leave them out with --skip-unreadable (one image at "
            "least must be left)"
        )
    return Shown(root, tuple(items), (), ("",) * len(items), tuple(unreadable), depth.bits)


def _labelled(data: Dataset) -> Shown:
    rows = sorted(((item, split) for split in SPLITS for item in data.split(split)), key=lambda row: row[0].name)
    items, splits = tuple(item for item, _ in rows), tuple(split for _, split in rows)
    return Shown(data.root, items, data.classes, splits, data.problems, data.bits, data.remarks)


def _prepared(item: Item, preparer: Preparer) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    try:
        encoded = item.path.read_bytes()
        if sha256_of(encoded) != item.sha256:
            raise UserError(f"{item.path}: its bytes changed while the folder was read: run again")
        pixels = np.array(preparer.prepare(encoded))
    except OSError as error:
        raise UserError(f"{item.path}: cannot be read ({error.strerror})") from None
    except BadImage as error:
        raise UserError(f"{item.path}: {error}: mend or remove it") from None
    small = Image.fromarray(pixels).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    grey = np.asarray(small, np.float32).ravel()
    grey = grey - grey.mean()
    length = float(np.linalg.norm(grey))
    return pixels, grey / length if length > 1e-6 else grey


def _network_hash(source: Source) -> str:
    """Of every number that the features depend on but the image. The head is none: it is new, and so random."""
    head_name, head = head_of(source.module)
    digest = hashlib.sha256(source.preprocess.model_dump_json().encode())
    for name, part in source.module.named_modules():
        if part is not head:
            digest.update(f"{name} {type(part).__name__} {part.extra_repr()}\n".encode())
    for name, tensor in source.module.state_dict().items():
        if not name.startswith(f"{head_name}."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _cached(cache: Path | None, key: str, item: Item) -> tuple[Features, NDArray[np.float32]] | None:
    """None, too, for a file that is damaged: it is computed anew."""
    path = cache / key / f"{item.sha256}.npz" if cache else None
    if path is None or not path.is_file():
        return None
    try:
        # np.load leaves a file that it opened itself open where it is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as rows:
            return rows["features"], rows["thumbnail"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _keep(cache: Path, key: str, item: Item, row: Features, thumbnail: NDArray[np.float32]) -> None:
    (cache / key).mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    np.savez(stream, features=row, thumbnail=thumbnail)
    write_atomically(cache / key / f"{item.sha256}.npz", stream.getvalue())
