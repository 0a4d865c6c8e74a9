"""`edgecnn plan`: the data, the freeze map, the cost and the advice as tables, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.extras import need_training
from edgecnn.cli.options import (
    BudgetText,
    Data,
    Fit,
    Good,
    Group,
    Json,
    MinPerClass,
    Model,
    NoGroup,
    Seed,
    Size,
    Skip,
    TargetName,
    Weights,
    WeightsKey,
)
from edgecnn.cli.reading import read_labelled
from edgecnn.cli.terminal import print_json
from edgecnn.cli.verbs import Verb
from edgecnn.recipes import named

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgecnn.plan import ClassRow, Described, Plan, RecipeCost
    from edgecnn.train import TrainOptions

_EVEN = 1.1
"""Imbalance below which no class is called the largest."""
_UNSTEADY = 1.3
"""Slowest batch to the fastest above which the estimate is called unsteady."""


def plan(
    data: Data,
    model: Model = "mobilenetv2_100",
    weights: Weights = None,
    weights_key: WeightsKey = None,
    size: Size = None,
    target: TargetName = "desktop-cpu",
    budget: BudgetText = None,
    fit: Fit = "stretch",
    batch: Annotated[int, typer.Option(min=2, help="Images in a step.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    good: Good = None,
    skip_unreadable: Skip = False,
    min_per_class: MinPerClass = 5,
    group: Group = None,
    no_group: NoGroup = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Before any training: what each recipe freezes, and its minutes.

    And the classes, and what to try first. It reads training images only and writes nothing. A few batches are timed,
    so run it while the machine is idle.
    """
    need_training()
    from edgecnn.cli.live import console, progress_bar, say
    from edgecnn.documents import checked
    from edgecnn.models import refuse_no_network
    from edgecnn.plan import plan as make
    from edgecnn.profiles import load_target, with_budget
    from edgecnn.train import TrainOptions
    from edgecnn.train.repeatable import usable_device
    from edgecnn.wanted import unfit

    profile = with_budget(load_target(target, unfit), budget)
    given = {"model": model, "weights": weights, "weights_key": weights_key, "size": size, "fit": fit}
    options = checked(TrainOptions, {**given, "batch": batch, "seed": seed, "device": device}, "options")
    refuse_no_network(options.model, options.weights)
    parts = {"group": group, "no_group": no_group}
    reading = {"good": good, "skip_unreadable": skip_unreadable, "min_per_class": min_per_class, **parts}
    with progress_bar() as bar:
        dataset = read_labelled(data, seed, reading, bar)
    found = make(
        dataset,
        options.model,
        profile,
        weights=options.weights,
        weights_key=options.weights_key,
        size=options.size,
        fit=options.fit,
        batch=options.batch,
        device=usable_device(options.device),
        seed=options.seed,
        say=say,
    )
    if as_json:
        print_json(found.model_dump_json(indent=1))
    else:
        show(found, console(), _command(data, options, group, no_group))


VERB = Verb(
    plan,
    after="run",
    example="Example: edgecnn plan parts/ --model torchvision:mobilenet_v2 --weights weights.safetensors "
    "--size 224 --target raspberry-pi-4",
    extras=("train",),
)


def show(found: Plan, output: Console, command: str) -> None:
    """Print a plan for people, and the command that goes on from it."""
    from edgecnn.cli.show import show_table

    output.print(_bold("labels"))
    show_table(_classes(found))
    show_table(_facts(_about(found)))
    of_model = f" of {found.model} at {found.size} px, peak learning rates"
    output.print(_joined("\n", _bold("freeze map"), of_model))
    show_table(_freeze_map(found))
    cost = found.cost
    threads = f"{cost.threads} thread{'s' * (cost.threads > 1)}"
    output.print(_joined("\n", _bold("cost"), f" on this machine ({cost.device}, {threads}), estimated"))
    show_table(_cost(found))
    show_table(_facts(_about_cost(found)))
    output.print(_joined("\n", _bold("recommendation")))
    show_table(_facts(_recommended(found)))
    output.print(_joined("\n", _bold("next")))
    output.print(command, soft_wrap=True)


def _classes(found: Plan) -> Table:
    data = found.data
    table = _table("class", "train", "val", "test", "share", "note")
    for row in data.classes:
        table.add_row(row.name, f"{row.train:,}", f"{row.val:,}", f"{row.test:,}", *_judged(row, data))
    table.add_section()
    table.add_row("sum", f"{data.train:,}", f"{data.val:,}", f"{data.test:,}", "100 %", "")
    return table


def _judged(row: ClassRow, data: Described) -> tuple[str, str]:
    """Share and remark."""
    notes = ["good"] if row.name == data.good_class else []
    if data.imbalance >= _EVEN:
        notes += [word for word, name in (("largest", data.largest), ("smallest", data.smallest)) if name == row.name]
    return f"{100 * row.share:.1f} %", ", ".join(notes)


def _about(found: Plan) -> Iterator[tuple[str, str | Text]]:
    data, domain = found.data, found.domain
    yield "imbalance", f"{data.imbalance:.1f}:1 between the largest and the smallest class in training"
    left_out = f"; {data.left_out} files left out" if data.left_out else ""
    yield "files", f"{data.median_width:.0f}×{data.median_height:.0f} px (median), {data.colour}{left_out}"
    numbers = ""
    if domain.pretrained is not None and domain.random is not None:
        numbers = (
            f" ({domain.pretrained:.1%} right against {domain.random:.1%}: linear probe on frozen features, "
            f"3 folds of {domain.images} training images)"
        )
    yield "domain", _joined(_bold(domain.verdict), f": {domain.reason}{numbers}")


def _freeze_map(found: Plan) -> Table:
    from rich.text import Text

    mapped = found.freeze_map
    table = _table("stage", "parameters", *(named(row.recipe).lettered for row in mapped.recipes))
    for stage in mapped.stages:
        rates = [Text("frozen", "blue") if rate is None else Text(f"{rate:.2g}") for rate in stage.lr.values()]
        table.add_row(stage.name, f"{stage.parameters:,}", *rates)
    table.add_section()
    table.add_row("sum", f"{found.params:,}")
    table.add_row("trainable", "", *(_bold(f"{row.trainable:,}") for row in mapped.recipes))
    table.add_row("", "", *(_percent(row.share) for row in mapped.recipes))
    table.add_row("frozen", "", *(f"{row.frozen:,}" for row in mapped.recipes))
    return table


def _cost(found: Plan) -> Table:
    cost = found.cost
    table = _table("", *(named(row.recipe).lettered for row in cost.recipes))
    for text, cell in _COST_ROWS:
        table.add_row(text, *(cell(row) for row in cost.recipes))
    return table


def _number(value: float) -> str:
    """To about two digits, without an exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _minutes(row: RecipeCost) -> Text:
    return _bold(_number(row.minutes))


def _once(row: RecipeCost) -> str:
    return _number(row.once_minutes) if row.computed_once else "–"


_COST_ROWS = (
    ("minutes in all", _minutes),
    ("frozen part, computed once, minutes", _once),
    ("epochs", lambda row: str(row.epochs)),
    ("seconds an epoch", lambda row: _number(row.epoch_seconds)),
    ("ms an image, frozen part", lambda row: _number(row.frozen_ms)),
    ("ms an image, training step", lambda row: _number(row.step_ms)),
)


def _about_cost(found: Plan) -> Iterator[tuple[str, str | Text]]:
    cost = found.cost
    yield (
        "once",
        f"preparing the images, {cost.prepare_ms:.1f} ms each: {_number(cost.prepare_minutes)} min, in the sums above",
    )
    yield "assumed", "; ".join(cost.assumptions)
    if cost.spread > _UNSTEADY:
        yield "unsteady", f"equal batches took up to {cost.spread:.1f} times as long: run it again on an idle machine"
    for speedup in cost.speedups:
        verdict = "a gain" if speedup.worth_it else "no gain worth having here"
        how = f"add {speedup.flag}" if speedup.flag and speedup.worth_it else "" if speedup.flag else "always on"
        after = ", ".join(filter(None, (verdict, how)))
        yield speedup.name, f"a training step at {speedup.ratio:.2f}× the speed of contiguous fp32 ({after})"


def _recommended(found: Plan) -> Iterator[tuple[str, str | Text]]:
    advice = found.advice
    yield "recipe", _joined(_bold(named(advice.recipe).lettered), _cost_of(found))
    yield "backbones", _bold(", ".join(advice.backbones))
    for rule in advice.rules:
        yield f"rule: {rule.name}", f"{rule.text} ({rule.source})" if rule.source else rule.text
    yield "but", advice.caution


def _cost_of(found: Plan) -> str:
    for row in found.cost.recipes:
        if row.recipe == found.advice.recipe:
            return f", up to about {_number(row.minutes)} min here"
    return ""


def _command(data: Path, options: TrainOptions, group: str | None, no_group: bool) -> str:
    """With the given model, which may not be among the recommended."""
    import shlex

    words = ["edgecnn", "finetune", str(data), "--model", options.model]
    for name in ("weights", "weights_key", "size"):
        value = getattr(options, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    words += ["--fit", options.fit] if options.fit != "stretch" else []
    words += ["--batch", str(options.batch)] if options.batch != 32 else []
    words += ["--group", group] if group is not None else ["--no-group"] if no_group else []
    return shlex.join([*words, "--recipe", "auto", "--out", f"runs/{data.resolve().name}"])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _table(*headers: str) -> Table:
    """The first column names the row and is never folded."""
    from rich.table import Table

    table = Table()
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 else "right", no_wrap=index == 0)
    return table


def _facts(lines: Iterable[tuple[str, str | Text]]) -> Table:
    """Names with sentences beside them, folded under themselves."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for line in lines:
        table.add_row(*line)
    return table


def _bold(text: str) -> Text:
    from rich.text import Text

    return Text(text, "bold")


def _joined(*parts: str | Text) -> Text:
    from rich.text import Text

    return Text.assemble(*parts)
