"""Keeps the libraries we call from reporting home: edgecnn has no telemetry, and neither has what it uses.

`import edgecnn` calls `forbid`, so every verb, child process and worker, the emulated board and whoever uses edgecnn as
a library is silent, whatever is imported later. Nothing here imports a library.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime: its import leaves a device id and queued events in the cache folder
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and timm and transformers through it
    "HF_XET_TELEMETRY_ENABLED": "0",  # the hub's downloader
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray
    "ENABLE_RUNTIME_UPTIME_TELEMETRY": "0",  # jax, which LiteRT's converter imports: on a cloud's TPU
    "DISABLE_TELEMETRY": "1",  # a name that several libraries share, as the next
    "DO_NOT_TRACK": "1",
}
"""Environment variable to the value that switches a library's reporting off; child processes inherit them."""
BLOCKED = ("openvino_telemetry", "openvino_telemetry.backend")
"""OpenVINO and NNCF have no such variable: they report each conversion unless the user opted out. Where their reporting
package cannot be imported, which None in `sys.modules` makes so, both fall back on a stub of their own."""


def forbid() -> None:
    """Switch every library's reporting off before any of them is imported; as far as it can be, after.

    A setting of the user's that would allow it is overruled: edgecnn promises that nothing phones home.
    """
    os.environ.update(SWITCHES)
    for name in BLOCKED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]
    _silence_what_is_loaded()


def _silence_what_is_loaded() -> None:
    """For who imports a library first and edgecnn second: what it did by then stays, what it would send does not go."""
    if engine := sys.modules.get("onnxruntime"):
        engine.disable_telemetry_events()
    if hub := sys.modules.get("huggingface_hub.constants"):
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    if reporter := sys.modules.get("openvino_telemetry.main"):
        reporter.TelemetrySender.send = lambda *words, **more: None
