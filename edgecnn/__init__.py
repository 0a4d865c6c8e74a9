"""From a folder of labelled images to a bundle that is proven to meet its latency budget on a named device."""

from edgecnn import telemetry

__version__ = "0.1.0"

telemetry.forbid()
