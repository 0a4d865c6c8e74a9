"""Whether a network that was built from an .onnx file answers as ONNX Runtime does, on real images."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError, first_line
from edgecnn.imaging import Images
from edgecnn.judge import measure, scale_of, unlike
from edgecnn.onnx_graph.network import Network
from edgecnn.onnx_graph.onnx_file import Input, read_model

LIMIT = 1e-5
"""Largest |difference| over the standard deviation of the scores."""
_ROUNDED_LIMIT = 0.05
"""The same between a file that computes in float16 and itself in float32."""
_TYPES = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(float)": np.float32}
_ROUNDING = 4
"""…or so many times what the network's own rounding to float32 makes, where that is more."""


def agreement(path: Path, entry: Input, network: Network, images: Images, preprocess: Preprocess) -> float:
    """Largest difference of the scores, relative to their standard deviation, between the two.

    ONNX Runtime runs the file image by image, torch runs them as one batch: a network that mixes the images of a batch
    is found out too. Raises UserError where the difference is more than rounding explains.
    """
    prepared = read_model(path)
    wanted = _reference(path, prepared.model.SerializeToString(), entry, images, preprocess)
    if prepared.rounded:
        _refuse_unlike_rounded(path, entry, images, preprocess, wanted)
    normalised = _normalised(images, preprocess)
    try:
        got = _scores(network, torch.from_numpy(normalised))
    except Exception as error:  # torch's, of shapes that fit one image but not several
        raise UserError(
            f"{path}: runs one image, but not a batch: {type(error).__name__}: {first_line(error)}"
        ) from None
    if not np.isfinite(wanted).all():
        raise UserError(f"{path}: gives scores that are not finite: is the file whole?")
    found = measure(got, wanted)
    if unlike(found, "fp32", LIMIT):
        exact = replace(network, module=copy.deepcopy(network.module).double())
        own = measure(_scores(exact, torch.from_numpy(normalised).double()), got, scale=scale_of(wanted))
        if unlike(found, "fp32", max(LIMIT, _ROUNDING * own.max_error)):
            raise UserError(
                f"{path}: built in torch it answers otherwise than in ONNX Runtime (difference {found.max_error:.1e} "
                f"of the scores' spread on {len(images)} images, at most {LIMIT:g}): not taken in; give its weights "
                "with --model"
            )
    return found.max_error


def _scores(network: Network, images: torch.Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        scores = network.module(images)
        scores = scores[:, 1:] - scores[:, :1] if network.single else scores
        for end in network.ends:
            scores = torch.sigmoid(scores) if end == "sigmoid" else getattr(torch, end)(scores, 1)
    return np.asarray(scores.numpy(), np.float64)


def _refuse_unlike_rounded(
    path: Path, entry: Input, images: Images, preprocess: Preprocess, wanted: NDArray[np.float64]
) -> None:
    """Of a file in float16 or the like: what it answers itself must be near what it answers in float32."""
    try:
        own = _reference(path, str(path), entry, images, preprocess)
    except UserError:  # it has no convolution in float64
        return
    if own.shape != wanted.shape:  # cut: it gives the number of a class
        return
    found = measure(own, wanted)
    if unlike(found, "fp32", _ROUNDED_LIMIT):
        raise UserError(
            f"{path}: in float32 it answers otherwise than as it is (difference {found.max_error:.1e} of the scores' "
            f"spread, at most {_ROUNDED_LIMIT:g}): give the float32 file that it was made from"
        )


def _reference(
    path: Path, model: bytes | str, entry: Input, images: Images, preprocess: Preprocess
) -> NDArray[np.float64]:
    """What ONNX Runtime answers, image by image, from a file or from its bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    rows = []
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        batch = session.get_inputs()[0].shape[0]
        copies = batch if isinstance(batch, int) and batch > 0 else 1  # of a file with a fixed batch
        for image in images:
            given = image[None].transpose(0, 3, 1, 2)
            if entry.pixels == "float":
                given = _normalised(image[None], preprocess)
            if entry.layout == "nhwc":
                given = given.transpose(0, 2, 3, 1)
            given = np.repeat(given, copies, axis=0).astype(_TYPES.get(session.get_inputs()[0].type, given.dtype))
            rows.append(session.run(None, {entry.name: given})[0].reshape(copies, -1)[0])
    except Exception as error:  # the engine's own exception types are not public
        raise UserError(f"{path}: ONNX Runtime cannot run it: {first_line(error)}") from None
    return np.stack(rows).astype(np.float64)


def _normalised(images: Images, preprocess: Preprocess) -> NDArray[np.float32]:
    """float32 (n, 3, h, w): what `Deployed` gives to the network."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
    normalised: NDArray[np.float32] = ((pixels / np.float32(255) - mean) / std).astype(np.float32)
    return normalised
