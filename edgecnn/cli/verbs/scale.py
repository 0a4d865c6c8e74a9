"""`edgecnn scale`: a backbone made larger or smaller."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli.extras import need_training
from edgecnn.cli.options import Json
from edgecnn.cli.verbs import Verb
from edgecnn.errors import UserError

if TYPE_CHECKING:
    from edgecnn.scale import Scaled, Searched

_ESTIMATE = (
    "median of the network alone on this machine (ONNX Runtime fp32, one thread, batch 1, no decoding): an estimate; "
    "`edgecnn bench` of an exported bundle gives the verdict"
)


def scale(
    phi: Annotated[float | None, typer.Option(help="φ: depth 1.2^φ, width 1.1^φ, resolution 1.15^φ.")] = None,
    base: Annotated[str, typer.Option(help="Network to scale.")] = "efficientnet_b0",
    max_macs: Annotated[str | None, typer.Option(help="The largest within so many MACs, such as 100M.")] = None,
    budget: Annotated[str | None, typer.Option(help="The largest within a median latency here, such as 30ms.")] = None,
    as_json: Json = False,
) -> None:
    """Scale a network's depth, width and resolution together.

    The name that it prints is what --model takes. MACs (multiply-accumulates) grow about by 2^φ, φ may be negative.
    Scaled networks have no pretrained weights. (EfficientNet, Tan and Le, 2019, arXiv:1905.11946.)
    """
    if [phi, max_macs, budget].count(None) != 2:
        raise UserError("scale: give one of --phi, --max-macs and --budget")
    need_training()
    from edgecnn.catalogue import parse_macs
    from edgecnn.models.architecture import find_architecture
    from edgecnn.scale import largest_within, largest_within_latency, parse_latency, scaled

    full = find_architecture(base).full
    search: Searched | None = None
    if budget is not None:
        search = largest_within_latency(parse_latency(budget), full)
        found = search.best
    elif max_macs is not None:
        found = largest_within(parse_macs(max_macs), full)
    else:
        assert phi is not None
        # Through the name's parser: it says what range is accepted.
        scale_of = find_architecture(f"{full}@phi={phi}").scale
        assert scale_of is not None
        found = scaled(scale_of.value, full)
    _show_scaled(found, scaled(0.0, full), search, as_json)


VERB = Verb(
    scale,
    after="models",
    example="Example: edgecnn scale --max-macs 100M · edgecnn scale --phi 1 --base mobilenetv2_100",
    extras=("train",),
)


def _show_scaled(found: Scaled, base: Scaled, search: Searched | None, as_json: bool) -> None:
    from edgecnn.models.scaling import Scale

    multipliers = Scale("phi", found.phi)
    if as_json:
        document: dict[str, Any] = {**asdict(found), "depth": multipliers.depth, "width": multipliers.width}
        document |= {"resolution": multipliers.resolution, "weights": None}
        if search is not None:
            measured = [{"phi": phi, **asdict(timing)} for phi, timing in search.measured]
            document |= {"latency": asdict(search.timing), "measured": measured, "note": _ESTIMATE}
        print(json.dumps(document, indent=1))
        return
    print(
        f"{found.name}: {found.macs / 1e6:,.1f} M MACs ({found.macs / base.macs:.2f} × those of φ 0, "
        f"2^φ = {2**found.phi:.2f}), {found.params / 1e6:.2f} M parameters, {found.size} px"
    )
    print(
        f"depth × {multipliers.depth:.2f} (blocks rounded up), width × {multipliers.width:.2f}, "
        f"resolution × {multipliers.resolution:.2f}; no pretrained weights: --weights none or your own file"
    )
    if search is not None:
        _show_timing(search)


def _show_timing(search: Searched) -> None:
    print(f"{search.timing.median_ms:.2f} ms, {_ESTIMATE}")
    print("measured: " + ", ".join(f"φ {phi:g}: {timing.median_ms:.2f} ms" for phi, timing in search.measured))
    if not all(timing.steady for _, timing in search.measured):
        print("unsteady: other work ran on this machine (p90 over 1.25 × median): repeat on an idle one")
