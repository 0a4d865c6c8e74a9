"""`edgecnn finetune`: a network on a folder of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecnn.cli.extras import is_first_process, need_training
from edgecnn.cli.options import Data, Json, Verbose
from edgecnn.cli.terminal import print_json
from edgecnn.cli.training import fine_tune_from, takes_training
from edgecnn.cli.verbs import Verb


@takes_training
def finetune(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder; a run that was cut off there is taken up again.")],
    as_json: Json = False,
    verbose: Verbose = False,
    **training: Any,
) -> None:
    """Fine-tune a network on a folder of labelled images.

    Several processes: torchrun --nproc-per-node 2 -m edgecnn finetune …
    """
    need_training()
    from edgecnn import outputs
    from edgecnn.cli.live import log_beside, logged
    from edgecnn.train.folder import refuse_other_content

    if not is_first_process():
        fine_tune_from(data, out, training)
        return
    refuse_other_content(out)
    log = log_beside(out)
    with outputs.folders(out, apart_from=data), logged(log, verbose):
        checkpoint = fine_tune_from(data, out, training)
    if as_json:
        print_json(checkpoint.model_dump_json(indent=1))
        raise typer.Exit(bool(checkpoint.doubts))
    metrics = checkpoint.metrics
    accuracy = "no validation images" if metrics.val_top1 is None else f"validation top-1 {metrics.val_top1:.1%}"
    print(f"{out}: {checkpoint.model}, recipe {checkpoint.recipe.name} ({checkpoint.reason})")
    epochs = f"{metrics.epochs} epoch{'s' * (metrics.epochs != 1)}"
    print(f"{accuracy}, {epochs} in {metrics.minutes:.1f} min, weights from {checkpoint.weights}")
    print(f"log: {log}")
    raise typer.Exit(bool(checkpoint.doubts))


VERB = Verb(
    finetune,
    after="plan",
    example="Example: edgecnn finetune parts/ --model mobilenetv2_100 --weights weights.safetensors --out runs/parts",
    extras=("train",),
)
