"""`edgecnn verify`: every variant again, from the encoded test images; and what is to blame where one differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli.options import BundleFolder, Json
from edgecnn.cli.terminal import print_json
from edgecnn.cli.verbs import Verb

_EPILOG = """Example: edgecnn verify bundle/ --data parts/

Why a variant differs, and what the usual mistakes cost: edgecnn verify bundle/ --data parts/ --explain

Somebody else's file: edgecnn verify bundle/ --data parts/ --foreign model.onnx --preprocess theirs.toml --explain

\b
theirs.toml says what is done to an image before it enters that file (the
same keys as of `export --preprocess`; size, mean, std at least):
  size = [224, 224]             # height, width
  colour = "rgb"                # rgb, bgr
  resize = "bilinear"           # bilinear, bicubic, lanczos, nearest (Pillow,
                                # torchvision), opencv-linear, -cubic, -area,
                                # -nearest, edgecnn (ours)
  antialias = true              # of bilinear, bicubic, as in torchvision
  fit = "stretch"               # stretch; center-crop, with crop = 0.875 or
                                # resize_short = 256
  scale = "1/255"               # 1/255, 1; enters:
                                # (pixel * scale - mean) / std
  mean = [0.485, 0.456, 0.406]  # in the order of colour
  std = [0.229, 0.224, 0.225]
  layout = "nchw"               # nchw, nhwc
  dtype = "float32"             # float32; uint8: pixels as they are, and no
                                # scale, mean, std
  output = "logits"             # logits, softmax, log-softmax, sigmoid
May be added: classes = ["crack", "good"] (the file's order),
decode = "scaled" (reduced by 2, 4, 8 while decoding; else whole),
orientation = "ignored" (the Exif tag; else obeyed)."""


def verify(
    bundle: BundleFolder,
    data: Annotated[Path, typer.Option(help="Folder with the test images; found by content, whatever their names.")],
    variant: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Name the first stage that differs, int8's layers, and what mistakes cost."),
    ] = False,
    foreign: Annotated[
        Path | None, typer.Option(help="Somebody else's .onnx, .tflite, .xml or TorchScript .pt of the same network.")
    ] = None,
    preprocess: Annotated[Path | None, typer.Option(help="With --foreign: its preprocessing, a .toml (below).")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="With --foreign: largest error. Default: what the bundle allows fp32.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run every variant again from the encoded test images.

    Exit code 1 where one is not good enough, or the network was in doubt when it was taken in; 3 where none, or not the
    bundle's choice, could be run here. With --foreign: 0 where the file matches the checkpoint, else 1.
    """
    from edgecnn.errors import UserError

    if foreign is not None:
        if variant:
            raise UserError("--variant: names one of the bundle's variants, --foreign another file: give one of them")
        _foreign(bundle, data, foreign, preprocess, explain, tolerance, as_json)
    if preprocess is not None or tolerance is not None:
        raise UserError("--preprocess, --tolerance: describe somebody else's file: name it with --foreign")
    _own(bundle, data, variant or [], explain, as_json)


VERB = Verb(verify, after="export", example=_EPILOG, engines=True)


def _own(bundle: Path, data: Path, variants: list[str], explain: bool, as_json: bool) -> None:
    from edgecnn.artifact import load_bundle
    from edgecnn.blame.tables import explanation_shown
    from edgecnn.blame.variants import explain as bisect
    from edgecnn.cli.live import say
    from edgecnn.cli.show import INTERVALS, show_table, verified, warn
    from edgecnn.verify import verify as check

    rows = check(bundle, data, variants, say)
    explanation = bisect(bundle, data, variants, say) if explain else None
    if as_json:
        listed = [row.model_dump(mode="json") for row in rows]
        whole = {"variants": listed, "explained": explanation.model_dump(mode="json")} if explanation else listed
        print(json.dumps(whole, indent=1))
    else:
        show_table(verified(rows))
        print(INTERVALS)
        for row in rows:
            if row.reason:
                print(f"{row.variant}: {row.reason}")
            elif row.proof is not None and row.proof.outcome != "proven":
                print(f"{row.variant}: {row.proof.text}")
        if explanation is not None:
            for part in explanation_shown(explanation):
                show_table(part)
    in_doubt = load_bundle(bundle).doubts
    warn(in_doubt)
    if in_doubt or any(row.passed is False for row in rows):
        raise typer.Exit(1)
    unknown = {row.variant for row in rows if row.passed is None}
    choice = load_bundle(bundle).choice
    if choice is not None and choice.variant in unknown:
        say(f"exit code 3: {choice.variant}, the bundle's choice, could not be verified here")
        raise typer.Exit(3)
    raise typer.Exit(0 if any(row.passed for row in rows) else 3)


def _foreign(
    bundle: Path,
    data: Path,
    model: Path,
    preprocess: Path | None,
    explain: bool,
    tolerance: float | None,
    as_json: bool,
) -> None:
    from edgecnn.blame.description import no_description
    from edgecnn.blame.foreign import diagnose
    from edgecnn.blame.tables import foreign_shown
    from edgecnn.cli.live import say
    from edgecnn.cli.show import show_table

    if preprocess is None:
        raise no_description(model)
    found = diagnose(bundle, data, model, preprocess, explain, tolerance, say)
    if as_json:
        print_json(found.model_dump_json(indent=1))
    else:
        for part in foreign_shown(found):
            show_table(part)
    raise typer.Exit(0 if found.matches else 1)
