"""The options of training, which `finetune` and `run` take alike: one table of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli.options import Fit, Model, Restart, Seed, Size, Weights, WeightsKey
from edgecnn.cli.reading import READING, read_labelled
from edgecnn.recipes import help_text

if TYPE_CHECKING:
    from edgecnn.checkpoint import Checkpoint
    from edgecnn.data import Dataset
    from edgecnn.train import Evidence, TrainOptions

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "model": (Model, "mobilenetv2_100"),
    "weights": (Weights, None),
    "weights_key": (WeightsKey, None),
    "recipe": (
        Annotated[
            str,
            typer.Option(help=help_text()),
        ],
        "auto",
    ),
    "minutes": (
        Annotated[
            float, typer.Option(help="Time box in which auto compares recipes on your images. 0: by a stated rule.")
        ],
        5.0,
    ),
    "size": (Size, None),
    "fit": (Fit, "stretch"),
    "epochs": (Annotated[int | None, typer.Option(help="Default: the recipe's.")], None),
    "batch": (Annotated[int, typer.Option(help="Images in a step, over all processes.")], 32),
    "lr": (Annotated[float | None, typer.Option(help="Peak rate of the head. Default: the recipe's.")], None),
    "decay": (
        Annotated[float | None, typer.Option(help="Rate of a stage relative to the next one. Default: the recipe's.")],
        None,
    ),
    "decay_by": (Annotated[str, typer.Option(help="stage, or layer as timm numbers them.")], "stage"),
    "schedule": (Annotated[str, typer.Option(help="cosine after a warm-up, or 1cycle.")], "cosine"),
    "warmup": (Annotated[float, typer.Option(help="Epochs over which the rate rises (cosine).")], 1.0),
    "weight_decay": (Annotated[float, typer.Option(help="AdamW's; none on biases and normalisation.")], 0.02),
    "label_smoothing": (Annotated[float, typer.Option(help="0: off.")], 0.1),
    "dropout": (
        Annotated[float | None, typer.Option(help="Before the head. Default: as the network is built.")],
        None,
    ),
    "augment": (Annotated[str, typer.Option(help="surface, natural (crops, colour), or none.")], "surface"),
    "mixup": (Annotated[float, typer.Option(help="Alpha, such as 0.2. 0: off.")], 0.0),
    "cutmix": (Annotated[float, typer.Option(help="Alpha, such as 1. 0: off.")], 0.0),
    "ema": (Annotated[float | None, typer.Option(help="Average the weights, such as 0.99. Default: off.")], None),
    "class_weights": (Annotated[str, typer.Option(help="sqrt, balanced or none, by class frequency.")], "sqrt"),
    "batchnorm": (Annotated[str, typer.Option(help="train, or frozen also in trained stages.")], "train"),
    "patience": (
        Annotated[int | None, typer.Option(help="Epochs without gain that end it. Default: a third, at least 8.")],
        None,
    ),
    "views": (
        Annotated[
            int | None, typer.Option(help="Augmented variants for which the frozen part is computed once. 0: none.")
        ],
        None,
    ),
    "disk_gib": (Annotated[float, typer.Option(help="Most that these take on disk.")], 4.0),
    "precision": (Annotated[str, typer.Option(help="fp32 or bf16 (mixed; `edgecnn plan` measures both).")], "fp32"),
    "device": (Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")], "auto"),
    "tensorboard": (Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard.")], False),
    "seed": (Seed, 0),
}
"""Fields of `TrainOptions`: type and default. What is not named here is not a choice of the command line."""

_RUN: dict[str, tuple[Any, Any]] = {
    "cache": (
        Annotated[Path | None, typer.Option(help="Keep prepared pixels and frozen activations here for later runs.")],
        None,
    ),
    "restart": (Restart, False),
}


_SHOWN = ("model", "weights", "recipe", "minutes", "size", "epochs", "seed", "good", "group", "restart")
"""In --help; the others are in --help-all."""


def _show_all(context: typer.Context, asked: bool) -> None:
    if asked:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        print(context.get_help())
        raise typer.Exit


_HelpAll = Annotated[
    bool, typer.Option("--help-all", is_eager=True, callback=_show_all, help="Show every option of training too.")
]


def takes_training(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb with `**training` the options of training, in place of that."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != inspect.Parameter.VAR_KEYWORD]
    options = {**_OPTIONS, **READING, **_RUN}
    ordered = sorted(options, key=lambda name: _SHOWN.index(name) if name in _SHOWN else len(_SHOWN))
    offered = {name: (_offered(name, options[name][0]), options[name][1]) for name in ordered}
    added = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in {**offered, "help_all": (_HelpAll, False)}.items()
    ]

    def verb(help_all: bool, **given: Any) -> None:
        command(**given)

    verb.__name__, verb.__doc__ = command.__name__, command.__doc__
    verb.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    return verb


def _offered(name: str, annotation: Any) -> Any:
    """The option, hidden from --help where it is none of those that most people need."""
    if name in _SHOWN:
        return annotation
    option = copy.copy(annotation.__metadata__[0])
    option.hidden = True
    return Annotated[annotation.__origin__, option]


def fine_tune_from(data: Path, out: Path, training: Mapping[str, Any]) -> Checkpoint:
    """Read the images and train on them as the command line says."""
    return fine_tune_on(read_for_training(data, training), out, training)


def read_for_training(data: Path, training: Mapping[str, Any], given_splits: bool = True) -> Dataset:
    """The images, read as the command line says; `given_splits`: as of `load_folder`."""
    from edgecnn.cli.live import progress_bar
    from edgecnn.models import refuse_no_network

    options = _options_of(training)  # a mistake in them is told before anything long begins
    refuse_no_network(options.model, options.weights)
    with progress_bar() as bar:
        reading = {name: training[name] for name in READING}
        return read_labelled(data, training["seed"], reading, bar, given_splits)


def fine_tune_on(dataset: Dataset, out: Path, training: Mapping[str, Any]) -> Checkpoint:
    """Train on images that were read, as the command line says."""
    from edgecnn.cli.live import keep, progress_bar, say
    from edgecnn.cli.show import show_table, tried, warn
    from edgecnn.train import fine_tune, read_evidence

    options = _options_of(training)
    with progress_bar() as bar:
        checkpoint = fine_tune(dataset, options, out, bar, restart=training["restart"], cache=training["cache"])
    for word, names in (("new", checkpoint.leftovers.missing), ("dropped", checkpoint.leftovers.unexpected)):
        if names:
            say(f"weights: {len(names)} tensors {word}: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}")
    warn(checkpoint.doubts)
    evidence: Evidence | None = read_evidence(out)
    if evidence and keep(tried(evidence)):
        show_table(tried(evidence), stderr=True)
    return checkpoint


def _options_of(training: Mapping[str, Any]) -> TrainOptions:
    from edgecnn.documents import checked
    from edgecnn.train import TrainOptions

    return checked(TrainOptions, {name: training[name] for name in _OPTIONS}, "options")
