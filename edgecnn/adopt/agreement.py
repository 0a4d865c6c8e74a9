"""Whether a network that was built from an .onnx file answers as ONNX Runtime does, on real images."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.artifact import Preprocess
from edgecnn.errors import UserError, first_line
from edgecnn.imaging import Images
from edgecnn.judge import measure, scale_of, unlike
from edgecnn.onnx_graph.network import Network
from edgecnn.onnx_graph.onnx_file import Input

LIMIT = 1e-5
"""Largest |difference| over the standard deviation of the scores."""
_ROUNDING = 4
"""…or so many times what the network's own rounding to float32 makes, where that is more."""


def agreement(path: Path, entry: Input, network: Network, images: Images, preprocess: Preprocess) -> float:
    """Largest difference of the scores, relative to their standard deviation, between the two.

    ONNX Runtime runs the file image by image, torch runs them as one batch: a network that mixes the images of a batch
    is found out too. Raises UserError where the difference is more than rounding explains.
    """
    wanted = _reference(path, entry, images, preprocess)
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
        exact = Network(copy.deepcopy(network.module).double(), network.outputs, None, network.ends)
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
        for end in network.ends:
            scores = torch.sigmoid(scores) if end == "sigmoid" else getattr(torch, end)(scores, 1)
    return np.asarray(scores.numpy(), np.float64)


def _reference(path: Path, entry: Input, images: Images, preprocess: Preprocess) -> NDArray[np.float64]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    rows = []
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        batch = session.get_inputs()[0].shape[0]
        copies = batch if isinstance(batch, int) and batch > 0 else 1  # of a file with a fixed batch
        for image in images:
            given = image[None].transpose(0, 3, 1, 2)
            if entry.pixels == "float":
                given = _normalised(image[None], preprocess)
            if entry.layout == "nhwc":
                given = given.transpose(0, 2, 3, 1)
            given = np.repeat(given, copies, axis=0)
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
