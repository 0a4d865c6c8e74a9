"""Options and arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.shipped import target_names

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show all: rungs, epochs, whole tables. The log has them too."),
]
Data = Annotated[Path, typer.Argument(help="Folder: <class>/*.jpg, or {train,val,test}/<class>/*.jpg.")]
TargetName = Annotated[str, typer.Option("--target", help=f"{', '.join(target_names())}, or your own .toml file.")]
Only = Annotated[
    str | None,
    typer.Option(help="Only these formats or variants: onnx,litert-int8."),
]
Quick = Annotated[bool, typer.Option("--quick", help="INT8 by the first rung of its ladder only, however good.")]
BudgetText = Annotated[str | None, typer.Option("--budget", help="Such as 30ms@p99. Default: the target's.")]
Samples = Annotated[int | None, typer.Option(help="Measured units of each variant. Default: 2,300.")]
BundleFolder = Annotated[Path, typer.Argument(help="Bundle folder, made by `edgecnn export`.")]
Model = Annotated[
    str, typer.Option(help="timm or torchvision network, such as mobilenetv2_100, or edgecnn_mobilenetv2_035.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="hub, none (random), or a file (.safetensors, .pth, …). Default: hub; embedded for our own backbone."
    ),
]
WeightsKey = Annotated[
    str | None,
    typer.Option(help="Which weights of a file with several, such as state_dict_ema. Default: the averaged ones."),
]
Size = Annotated[int | None, typer.Option(help="Input size in pixels. Default: the network's own.")]
Fit = Annotated[str, typer.Option(help="stretch the whole image, or center-crop.")]
Seed = Annotated[int, typer.Option(help="Of the split and the training.")]
Good = Annotated[str | None, typer.Option(help="Class of parts without a defect; none. Default: guessed by name.")]
Skip = Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable images out instead of stopping.")]
MinPerClass = Annotated[int, typer.Option(help="Fewer images in a class stop the run. 0: any number.")]
Group = Annotated[
    str | None,
    typer.Option(
        help="What names the part that an image shows: a regular expression over file names (over paths where it has "
        "a slash), its first group or the whole match; or a .csv table file,group. No part is in two splits. Default: "
        "images that look alike are one part."
    ),
]
NoGroup = Annotated[bool, typer.Option("--no-group", help="Images that look alike may be in different splits.")]
Restart = Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run left in --out.")]
Require = Annotated[
    str | None,
    typer.Option(help="What the engine must really run of an int8 variant's MACs, such as int8>=90%."),
]
