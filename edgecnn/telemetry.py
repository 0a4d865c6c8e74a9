"""Keeps the libraries we call from reporting home: edgecnn has no telemetry, and neither has what it uses."""

from __future__ import annotations

import os
import sys


def forbid() -> None:
    """Call before importing openvino, nncf or huggingface_hub.

    OpenVINO and NNCF report each conversion unless the user opted out; where their reporting package cannot be
    imported, which None in `sys.modules` makes so, both fall back on a stub of their own.
    """
    for name in ("openvino_telemetry", "openvino_telemetry.backend"):
        sys.modules[name] = None  # type: ignore[assignment]
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
