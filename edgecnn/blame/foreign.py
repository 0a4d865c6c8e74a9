"""Somebody's model file and what they say of its preprocessing, against the checkpoint: which stage is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from edgecnn.artifact import Bundle, load_bundle
from edgecnn.blame import engines
from edgecnn.blame.answers import Effect, effect, moved
from edgecnn.blame.apart import Apart
from edgecnn.blame.baked import baked_in
from edgecnn.blame.case import SAME_NET, Case, Reading, input_layout, input_size, search
from edgecnn.blame.description import Description, assumed_words, described_pipeline, read_description
from edgecnn.blame.engines import Refused
from edgecnn.blame.images import given_images
from edgecnn.blame.orders import order_words
from edgecnn.blame.outputs import Answers, Kind, Output
from edgecnn.blame.pipeline import Pipeline
from edgecnn.blame.stages import exchange, walk, words
from edgecnn.data.names import same
from edgecnn.documents import Frozen
from edgecnn.errors import UserError
from edgecnn.judge import scale_of
from edgecnn.modelfiles.class_names import Named, class_names
from edgecnn.progress import Progress

EXPLAINED_IMAGES = 400
"""The search for the stage to blame runs on at most so many images, evenly spaced."""
_SHARE = 0.1
"""A stage that moves the answers by less than this share of what the worst one does is not to blame."""
_LOW_PRECISION = 0.6
"""Least correlation by which a file with int8 or fp16 in it is taken for a copy of the checkpoint."""
_EXPORT = 0.9999
"""Least correlation by which a difference is taken for one of arithmetic, not of weights."""


class Step(Frozen):
    """One stage in which a description differs from what its file needs."""

    stage: str
    given: str
    needed: str
    moves: float
    """By how much the stage moves the answers, the earlier stages being as described and the later ones as needed:
    root of the mean square, in standard deviations of the reference's answers."""
    to_blame: bool
    alone: Effect
    """Of this stage as described where all others are as needed."""
    put_right: Effect
    """Of this stage as needed where all others are as described."""


class ForeignReport(Frozen):
    """What became of a foreign file."""

    file: str
    engine: str
    images: int
    tolerance: float
    matches: bool
    as_described: Effect
    reference_top1: float
    verdict: str
    """One line."""
    first: str | None = None
    """The first stage that differs: of `edgecnn.blame.stages.STAGES`, or of what comes after the input: output, class
    order, engine, export, precision, weights."""
    steps: tuple[Step, ...] = ()
    cured_by: tuple[str, ...] = ()
    """The fewest stages that have to be put right."""
    takes: str | None = None
    """What the file takes, found by trying."""
    at_best: Effect | None = None
    """With our own pixels entering as the file needs them."""
    explained_images: int | None = None
    remarks: tuple[str, ...] = ()


def diagnose(
    folder: Path,
    data: Path,
    model: Path,
    preprocess: Path,
    explain: bool = True,
    tolerance: float | None = None,
    progress: Progress = lambda text: None,
) -> ForeignReport:
    """Run a foreign file from the encoded test images exactly as described, and compare with the checkpoint.

    `explain`: where it does not match, search for the stage to blame. `tolerance`: largest error, in standard
    deviations of the reference logits; None for what the bundle allows fp32. Raises UserError: a description with
    mistakes, a file that cannot be opened or refuses what is described, test images that are not in `data`.
    """
    bundle = load_bundle(folder)
    said = read_description(preprocess)
    described = described_pipeline(said, preprocess.name)
    if said.classes is not None and sorted(said.classes) != sorted(bundle.classes):
        raise UserError(f"{preprocess}: classes: {', '.join(said.classes)}: the bundle has {', '.join(bundle.classes)}")
    name, _ = engines.for_file(model)
    given = given_images(folder, data, bundle, progress)
    with Apart(bundle.threads) as apart:
        opened = apart.open(name, model, described.height * described.width)
        own = None if said.classes else _own_names(opened.metadata(), bundle)
        case = Case(
            path=model,
            engine=name,
            opened=opened,
            takes=input_layout(opened, described),
            spec=bundle.preprocess,
            classes=bundle.classes,
            file_classes=said.classes or (own.classes if own else bundle.classes),
            expected=given.expected,
            paths=given.paths,
            tolerance=bundle.fp32_tolerance if tolerance is None else tolerance,
        )
        _refuse_another_size(case, described, preprocess)
        progress(f"{model.name} as described, {len(case.paths)} images")
        try:
            answers = case.answers([described])[0]
        except Refused as error:
            raise UserError(f"{model}: {name} refuses what {preprocess.name} describes: {error}") from None
        found = _compared(case, answers, said)
        remarks = [f"classes in the order of the file's own {own.key!r}"] if own else []
        remarks += [assumed] if (assumed := assumed_words(said)) else []
        found = found.model_copy(update={"remarks": tuple(remarks)})
        if found.matches or not explain:
            return found
        progress("searching for the stage to blame")
        fewer = given.at_most(EXPLAINED_IMAGES)
        case = replace(case, paths=fewer.paths, expected=fewer.expected)
        return _explained(case, described, said.output, found, folder, bundle)


def _explained(
    case: Case, described: Pipeline, output: Kind, found: ForeignReport, folder: Path, bundle: Bundle
) -> ForeignReport:
    """The report with the stage to blame, of a file that does not match."""
    reading = search(case, described, case.answers([described])[0])
    low = case.opened.precision()
    known = {"takes": reading.words, "at_best": reading.effect, "explained_images": len(case.paths)}
    if reading.effect.correlation < (_LOW_PRECISION if low else SAME_NET):
        stage, text = baked_in(case, described, folder, bundle) or _strange(case, reading)
        verdict = f"first stage that differs: {stage} ({text}): {_cost(found.as_described)}"
        return found.model_copy(update={**known, "first": stage, "verdict": verdict})
    steps = _steps(case, described, reading)
    blamed = [step for step in steps if step.to_blame]
    after = _after_the_input(case, reading, output, low)
    lines = [f"{step.stage} ({step.given}, where the checkpoint's answers need {step.needed})" for step in blamed]
    lines += [f"{stage} ({text})" for stage, text in after]
    stages = [*(step.stage for step in blamed), *(stage for stage, _ in after)]
    verdict = f"{_first(lines)}: {_cost(found.as_described)}"
    if len(lines) > 1:
        verdict += f"; also {'; '.join(lines[1:])}"
    changes = {
        **known,
        "verdict": verdict,
        "first": stages[0] if stages else None,
        "steps": tuple(steps),
        "cured_by": _cure(case, described, reading, [step.stage for step in blamed]),
        "remarks": (
            *found.remarks,
            *(
                f"{step.stage} ({step.given}) moves the answers {_little(step.moves)}"
                for step in steps
                if not step.to_blame
            ),
        ),
    }
    return found.model_copy(update=changes)


def _own_names(held: Mapping[str, str], bundle: Bundle) -> Named | None:
    """The names that the file gives to its outputs, where they are the bundle's."""
    named = class_names(held, len(bundle.classes))
    named = replace(named, classes=tuple(map(same, named.classes))) if named else None
    return named if named and sorted(named.classes) == sorted(bundle.classes) else None


def _compared(case: Case, answers: Answers, said: Description) -> ForeignReport:
    as_described = effect(answers, case.expected, Output(said.output))
    matches = as_described.error <= case.tolerance
    limit = f"limit {case.tolerance:.0e}"
    verdict = f"matches the checkpoint (largest error {as_described.error:.1e}, {limit})"
    if not matches:
        verdict = f"does not match the checkpoint ({limit}): {_cost(as_described)}; --explain says why"
    return ForeignReport(
        file=str(case.path),
        engine=case.engine,
        images=len(case.paths),
        tolerance=case.tolerance,
        matches=matches,
        as_described=as_described,
        reference_top1=float((case.expected.logits.argmax(1) == case.expected.labels).mean()),
        verdict=verdict,
    )


def _little(moves: float) -> str:
    return f"by {moves:.1e} of their scale: not to blame" if moves else "of these images not at all"


def _first(lines: Sequence[str]) -> str:
    return f"first stage that differs: {lines[0]}" if lines else "no stage was found that differs"


def _cost(found: Effect) -> str:
    return (
        f"error {found.error:.2g} of the logits' scale, {0.0 - found.loss_points:+.1f} points, {found.flipped} flipped"
    )


def _refuse_another_size(case: Case, described: Pipeline, preprocess: Path) -> None:
    height, width = input_size(case.opened.shape, case.takes)
    if height not in (None, described.height) or width not in (None, described.width):
        said = f"[{described.height}, {described.width}]"
        raise UserError(f"{preprocess}: size: {said}, but {case.path.name} takes [{height}, {width}]")


def _steps(case: Case, described: Pipeline, reading: Reading) -> list[Step]:
    """Walk from what the file needs to what is described, a stage at a time; then judge each stage for itself."""
    needed = reading.pipeline
    path = list(walk(needed, described))
    if not path:
        return []
    stages = [stage for stage, _ in path]
    alone = [exchange(needed, described, [stage]) for stage in stages]
    put_right = [exchange(described, needed, [stage]) for stage in stages]
    got = [reading.read(one) for one in _each_once(case, [needed, *(at for _, at in path), *alone, *put_right])]
    wanted = reading.output.of(case.expected.logits)
    count = len(stages)
    moves = [moved(got[i], got[i + 1], scale_of(wanted)) for i in range(count)]
    blamed = _to_blame(stages, moves, case.tolerance)
    effects = [effect(one, case.expected, reading.output) for one in got[count + 1 :]]
    return [
        Step(
            stage=stage,
            given=words(stage, described),
            needed=words(stage, needed),
            moves=moves[i],
            to_blame=stage in blamed,
            alone=effects[i],
            put_right=effects[count + i],
        )
        for i, stage in enumerate(stages)
    ]


def _to_blame(stages: Sequence[str], moves: Sequence[float], tolerance: float) -> set[str]:
    """Stages that move the answers enough. A decode that is merely not ours is to blame only where nothing else is."""
    worst = max(moves)
    move_of = dict(zip(stages, moves, strict=True))
    heavy = {stage for stage, move in move_of.items() if move > tolerance and move >= _SHARE * worst}
    others = [move_of[stage] for stage in heavy - {"decode"}]
    return heavy - {"decode"} if others and max(others) >= move_of.get("decode", 0.0) / 2 else heavy


def _cure(case: Case, described: Pipeline, reading: Reading, stages: Sequence[str]) -> tuple[str, ...]:
    """The fewest of the stages that, put right, do what putting all of them right does."""
    options = [chosen for count in (1, 2) for chosen in combinations(stages, count) if count < len(stages)]
    if not options:
        return tuple(stages)
    pipelines = [exchange(described, reading.pipeline, chosen) for chosen in [tuple(stages), *options]]
    errors = [
        effect(reading.read(answers), case.expected, reading.output).mean_error
        for answers in _each_once(case, pipelines)
    ]
    for chosen, error in zip(options, errors[1:], strict=True):
        if error <= max(1.5 * errors[0], case.tolerance):
            return chosen
    return tuple(stages)


def _each_once(case: Case, pipelines: Sequence[Pipeline]) -> list[Answers]:
    different = list(dict.fromkeys(pipelines))
    known = dict(zip(different, case.answers(different), strict=True))
    return [known[pipeline] for pipeline in pipelines]


def _after_the_input(case: Case, reading: Reading, output: Kind, low: str | None) -> list[tuple[str, str]]:
    """What differs although the right pixels enter: (stage, words)."""
    found = []
    if reading.order is not None:
        # order[i] is the column of our class i, as the file's classes were said to stand.
        columns = dict(zip(reading.order, case.classes, strict=True))
        order = order_words(case.file_classes, [columns[i] for i in _file_columns(case)])
        found.append(("class order", f"the file's classes are {order}"))
    if reading.output != Output(output):
        found.append(("output", f"the file {reading.output.words}, described is {output}"))
    best = reading.effect
    if best.error <= case.tolerance:
        return found
    left = f"error {best.error:.2g} and {best.flipped} flipped with the right pixels"
    engine = engines.get(case.engine)
    if engine is not None and engine.plain is not None and _plain_is_right(case, reading):
        found.append(("engine", f"{left}; without the engine's optimisations the file answers right"))
    elif low:
        found.append(("precision", f"{low} in the file: {left}"))
    elif best.correlation >= _EXPORT:
        found.append(("export", f"{left}: arithmetic of lower precision, or an operation that was exported otherwise"))
    else:
        found.append(("weights", f"{left}, correlation {best.correlation:.3f}: close to the checkpoint, but not it"))
    return found


def _file_columns(case: Case) -> list[int]:
    """Our columns in the order in which the file has them."""
    return [case.classes.index(name) for name in case.file_classes]


def _plain_is_right(case: Case, reading: Reading) -> bool:
    index = case.some(8)
    try:
        with Apart(1) as apart:
            pixels = reading.pipeline.height * reading.pipeline.width
            plain = replace(case, opened=apart.open(case.engine, case.path, pixels, plain=True))
            answers = reading.read(plain.answers([reading.pipeline], index)[0])
    except (UserError, Refused):
        return False
    return effect(answers, case.expected.some(index), reading.output).error <= case.tolerance


def _strange(case: Case, reading: Reading) -> tuple[str, str]:
    """(stage, words) of a file that no known preprocessing makes answer as the checkpoint."""
    first = case.some(1)
    answers = case.answers([reading.pipeline, reading.pipeline], first)
    if not np.isfinite(answers[0]).all():
        return "export", "its answers are not finite numbers"
    if not np.array_equal(answers[0], answers[1]):
        return "export", "two runs on the same image differ: it was exported in training mode (dropout, BatchNorm)"
    best = reading.effect
    return "weights", (
        f"no known preprocessing makes it answer as the checkpoint: correlation {best.correlation:.2f} at best "
        f"({reading.words}), {best.agreement:.0%} equal decisions: another network, other weights or a broken export"
    )
