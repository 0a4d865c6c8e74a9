"""From a folder of labelled images to a bundle that is proven to meet its latency budget on a named device.

What the command line does, as functions; nothing is imported before it is used:

    import edgecnn

    edgecnn.fine_tune("parts", out="trained")                 # labelled images to a run folder
    edgecnn.export("trained", out="bundle")                   # to every format of a target, each verified
    rows = edgecnn.verify("bundle", "parts")                  # again, from the encoded test images
    rows = edgecnn.bench("bundle", budget="30ms@p99")         # latency, with a verdict
    with edgecnn.load("bundle", variant="onnx-int8") as predictor:
        print(predictor.predict("part.jpg").label)

A mistake in what was given raises `UserError`, in the words of the command line.
"""

from edgecnn import telemetry

TYPE_CHECKING = False
"""As of typing, whose import would take longer than all that is here."""
if TYPE_CHECKING:
    from edgecnn.api import bench, export, fine_tune, verify
    from edgecnn.artifact import Bundle
    from edgecnn.bench.rows import Row, Skipped
    from edgecnn.bench.summary import Summary
    from edgecnn.checkpoint import Checkpoint
    from edgecnn.errors import BadImage, MissingExtra, UserError
    from edgecnn.predictor import Decision, Predictor, load
    from edgecnn.profiles import Budget, Target, load_target
    from edgecnn.proof import DecidesOtherwise
    from edgecnn.verify import Verified
else:

    def __getattr__(name: str) -> object:
        """Import what is asked for. Nothing is kept here: a module of the same name takes its place (see `called`)."""
        for home, names in _HOMES.items():
            if name in names:
                import importlib

                return getattr(importlib.import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "BadImage",
    "Budget",
    "Bundle",
    "Checkpoint",
    "DecidesOtherwise",
    "Decision",
    "MissingExtra",
    "Predictor",
    "Row",
    "Skipped",
    "Summary",
    "Target",
    "UserError",
    "Verified",
    "bench",
    "export",
    "fine_tune",
    "load",
    "load_target",
    "verify",
]

_HOMES = {
    "edgecnn.api": ("bench", "export", "fine_tune", "verify"),
    "edgecnn.artifact": ("Bundle",),
    "edgecnn.bench.rows": ("Row", "Skipped"),
    "edgecnn.bench.summary": ("Summary",),
    "edgecnn.checkpoint": ("Checkpoint",),
    "edgecnn.errors": ("BadImage", "MissingExtra", "UserError"),
    "edgecnn.predictor": ("Decision", "Predictor", "load"),
    "edgecnn.profiles": ("Budget", "Target", "load_target"),
    "edgecnn.proof": ("DecidesOtherwise",),
    "edgecnn.verify": ("Verified",),
}
"""Where each name of `__all__` is; the imports above say the same to type checkers."""

telemetry.forbid()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
