"""`edgecnn embed`: backbone features of a folder, and what they show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli.extras import need_training
from edgecnn.cli.options import Fit, Good, Group, Json, NoGroup, Seed, Size, Skip, Weights, WeightsKey
from edgecnn.cli.reading import looks_of
from edgecnn.cli.terminal import print_json
from edgecnn.cli.verbs import Verb
from edgecnn.errors import UserError, not_one_of

if TYPE_CHECKING:
    from rich.console import Console

    from edgecnn.embeddings import Findings

_MODEL = "mobilenetv2_100"
_SHOWN = 12
"""Suspects of each kind on the screen; --json and --page have all, or most."""
_MANY = 0.2
"""Share of the images that cannot all be labelled wrongly."""


def embed(
    data: Annotated[Path, typer.Argument(help="Folder: <class>/*.jpg, split or not, or images without classes.")],
    out: Annotated[Path, typer.Option(help="Features with paths, labels and splits: .npz or .parquet.")],
    model: Annotated[str | None, typer.Option(help=f"timm or torchvision network. Default: {_MODEL}.")] = None,
    weights: Weights = None,
    weights_key: WeightsKey = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Run folder whose network and split are taken.")] = None,
    size: Size = None,
    fit: Fit = "stretch",
    similar: Annotated[
        float, typer.Option(help="Least cosine of features of images that are compared by pixels.", min=0, max=1)
    ] = 0.9,
    page: Annotated[Path | None, typer.Option(help="HTML page with the suspects' pictures.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps features by content for the next time.")] = None,
    seed: Seed = 0,
    good: Good = None,
    skip_unreadable: Skip = False,
    group: Group = None,
    no_group: NoGroup = False,
    as_json: Json = False,
) -> None:
    """Write backbone features; list duplicates and doubtful labels.

    The features are judged by nearest neighbours and a linear probe.
    """
    need_training()
    from edgecnn import outputs
    from edgecnn.cli.live import progress_bar, say
    from edgecnn.embeddings import embed as run
    from edgecnn.embeddings import images_of_run, read_images, refuse_other_content
    from edgecnn.embeddings.features import from_checkpoint, from_model

    own = model or weights or weights_key or size or fit != "stretch" or group or no_group
    _refuse_misfits(fit, bool(checkpoint and own))
    refuse_other_content(out)
    with outputs.files(out, page), progress_bar() as bar:
        named = (model or _MODEL, weights, size, fit, weights_key)
        source = from_checkpoint(checkpoint) if checkpoint else from_model(*named)
        for remark in source.remarks:
            say(f"weights: {remark}")
        bar.start(1, f"reading {data}")
        if checkpoint:
            images = images_of_run(data, checkpoint, say)
        else:
            images = read_images(
                data,
                seed=seed,
                good=good,
                skip_unreadable=skip_unreadable,
                group=group,
                looks=looks_of(group, no_group),
            )
            for remark in images.remarks:
                say(remark)
        findings = run(images, source, out, bar, cache=cache, similar=similar, page=page)
    if as_json:
        print_json(findings.model_dump_json(indent=1))
    else:
        _show(findings)


VERB = Verb(
    embed,
    after="doctor",
    example="Example: edgecnn embed parts/ --model mobilenetv2_100 --out parts.npz --page suspects.html",
    extras=("train",),
)


def _refuse_misfits(fit: str, both: bool) -> None:
    """UserError: no such fit, or a checkpoint and what it brings itself at once (`both`)."""
    if fit not in ("stretch", "center-crop"):
        raise not_one_of("--fit", fit, ("stretch", "center-crop"))
    if both:
        raise UserError(
            "--checkpoint brings its own network, size and split: leave out --model, --weights, --weights-key, "
            "--size, --fit, --group and --no-group"
        )


def _show(findings: Findings) -> None:
    from rich.table import Table

    from edgecnn.cli.live import console
    from edgecnn.cli.show import show_table

    output = console()
    output.print(
        f"{findings.out}: {findings.images} images × {findings.dimensions} features of {findings.model}, "
        f"{findings.computed} computed in {findings.seconds:.1f} s"
    )
    if findings.baselines:
        table = Table("baseline", "setting", "test images", "top-1, % [95 %]", "mean recall, %")
        for row in findings.baselines:
            low, high = 100 * row.interval.low, 100 * row.interval.high
            top1 = f"{100 * row.top1:.1f} [{low:.1f}, {high:.1f}]"
            table.add_row(row.name, row.setting, str(row.test_images), top1, f"{100 * row.balanced:.1f}")
        show_table(table)
    _show_duplicates(findings, output)
    wrong = findings.mislabelled
    look = f" of {findings.images} images (look before you relabel)" if wrong else ""
    output.print(f"labels that the features contradict: {len(wrong)}{look}{_listed(len(wrong))}")
    if len(wrong) > _MANY * findings.images:
        output.print(
            "  so many are rather errors of these features than of the labels: try another --model, or more images"
        )
    for one in wrong[:_SHOWN]:
        output.print(
            f"  {one.image}: {one.suggested}? {one.probability:.0%} against {one.label_probability:.0%}, "
            f"{one.neighbours_agree:.0%} of its neighbours agree",
        )
    for line in findings.left_out:
        output.print(f"left out: {line}")
    if findings.page:
        output.print(f"page: {findings.page}")


def _show_duplicates(findings: Findings, output: Console) -> None:
    twins = findings.duplicates
    leaks = sum(pair.straddles for pair in twins)
    exact = sum(pair.exact for pair in twins)
    pairs = "1 pair" if len(twins) == 1 else f"{len(twins)} pairs"
    output.print(f"duplicates: {pairs}, {exact} exact; {leaks} across splits{_listed(len(twins))}")
    for pair in twins[:_SHOWN]:
        kind = "exact" if pair.exact else f"pixels {pair.correlation:.3f}"
        differ = ", labels differ" if pair.labels_differ else ""
        split = ", across splits" if pair.straddles else ""
        output.print(f"  {pair.first} = {pair.second} ({kind}{split}{differ})")


def _listed(found: int) -> str:
    return f"; the first {_SHOWN}, all with --json" if found > _SHOWN else ""
