"""What a report says in sentences: the verdict, what to beware of, and what it does not show."""

from __future__ import annotations

from dataclasses import dataclass

from edgecnn.artifact import Bundle
from edgecnn.bench import Summary, Verdict
from edgecnn.bench.report.material import Material, Variant, host_words
from edgecnn.bench.report.wording import counted, limit_words, millions, milliseconds, moment, percent, proportion
from edgecnn.bench.stats import Outcome
from edgecnn.mistakes import optimism
from edgecnn.numbers import plain
from edgecnn.pooled import Pooled, refused
from edgecnn.profiles import Budget

SYMBOLS: dict[Outcome, str] = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"}
"""So that colour is not all that tells them apart."""


@dataclass(frozen=True)
class Headline:
    """The verdict in one sentence."""

    outcome: Outcome
    symbol: str
    sentence: str
    why_this: str
    """Why the sentence is about this variant."""


def headline(material: Material) -> Headline:
    """The verdict of the chosen variant (of the best where none was chosen): where, when and how accurate."""
    outcome, subject = material.overall.outcome, material.subject
    if subject is None or subject.summary is None or subject.summary.verdict is None or subject.run is None:
        name = subject.name if subject else "no variant"
        sentence = f"{name} has no verdict: {material.overall.reason}."
        return Headline("INCONCLUSIVE", SYMBOLS["INCONCLUSIVE"], sentence, _why(material))
    run, verdict, check = subject.run, subject.summary.verdict, subject.artifact.check
    where = f"measured on {host_words(run)} with {counted(run.threads, 'thread')} on {moment(run.started)}"
    interval = f"{100 * check.top1_interval.low:.1f} to {percent(check.top1_interval.high)}"
    accuracy = f"top-1 is {percent(check.top1)} of {counted(check.images, 'test image')} (95 % interval {interval}"
    bound = _against_budget(material.budget, subject.summary, verdict)
    sentence = (
        f"{subject.name} in {subject.artifact.runtime} {bound}, {where}; "
        f"{accuracy}; eager fp32 {percent(check.reference_top1)})."
    )
    return Headline(outcome, SYMBOLS[outcome], sentence, _why(material))


def alarms(material: Material, pooled: Pooled | None = None) -> list[str]:
    """What stands above the verdict: the network is in doubt, or all folds together refuse a variant."""
    bundle = material.bundle
    found = [f"the network does not fit what is assumed of it: {doubt.words}" for doubt in bundle.doubts]
    if pooled is not None:
        found += [f"{variant}: {reason}" for variant, reason in refused(pooled, bundle).items()]
    return found


def network_line(material: Material) -> str:
    """Parameters, MACs and FLOPs: the same network in every row."""
    bundle = material.bundle
    cost, spec = bundle.cost, bundle.preprocess
    line = (
        f"{bundle.provenance.model}, {spec.width}×{spec.height}: {millions(cost.params)} M parameters, "
        f"{millions(cost.macs)} M MACs = {millions(cost.flops)} M FLOPs (2 × MACs) an image, the same in every row"
    )
    return line + (f"; not counted: {', '.join(cost.uncounted)}" if cost.uncounted else "")


def speed_notes(material: Material) -> list[str]:
    """How to read the table of latencies."""
    name = f"p{plain(material.budget.percentile)}"
    return [
        "Stages and totals: from encoded bytes in memory to the decision, batch 1, n units each (below the name). "
        "Medians of stages do not add up to that of the total.",
        f"{name} ≤: upper 99 % confidence bound of {name} by order statistics; the verdict compares it with the budget "
        f"of {material.budget}. max: the slowest unit.",
    ]


def engine_notes() -> list[str]:
    """How to read the table of engines."""
    return ["threads used: processor seconds per second. int8 layers: what the engine ran, of all with weights."]


def answer_notes(material: Material) -> list[str]:
    """How to read the table of answers."""
    images = max((variant.artifact.check.images for variant in material.variants), default=0)
    good = material.bundle.good_class
    defects = (
        f"missed defects: defects called {good!r}; false alarms: {good!r} parts called a defect; in brackets eager "
        "fp32's."
        if good is not None
        else "missed defects, false alarms: not known, no class is the good one."
    )
    return [
        f"Accuracy: {images:,} test images; 95 % intervals, top-1 by Clopper and Pearson, loss paired with eager fp32 "
        "on the same images (plus is worse). logit error: the largest, in standard deviations of fp32's logits.",
        parts_line(material.bundle),
        defects,
        f"loss limit: whether the test images show, for all variants at once with 95 %, that the loss is within "
        f"{limit_words(material.bundle.accuracy_loss_limit)}, or beyond a limit; n: so many images, answered alike, "
        "would.",
    ]


def parts_line(bundle: Bundle) -> str:
    """How images of one part were kept out of two splits."""
    grouping = bundle.provenance.grouping
    if grouping is None:
        return "Parts: nobody looked whether one part is in several splits."
    how = {
        "names": f"named by {grouping.rule!r}",
        "table": f"named by {grouping.rule.partition(' ')[0]}",
        "looks": "told by looks",
        "content": "equal bytes only: one part photographed twice may be in two splits",
    }[grouping.by]
    straddling = (
        f"; {grouping.straddling} are in several of the given splits, and accuracy is flattered"
        if grouping.straddling
        else ""
    )
    apart = (
        f"; {counted(grouping.alike_apart, 'set')} of images that look alike are in several splits, and where these "
        "show one part, accuracy is flattered"
        if grouping.alike_apart
        else ""
    )
    return (
        f"Parts: {grouping.images:,} images of {counted(grouping.parts, 'part')} ({how}; sha256 "
        f"{grouping.sha256[:12]}…){straddling}{apart}."
    )


def warnings(material: Material) -> list[str]:
    """What to beware of in the variant that the report is about, and in the bundle."""
    subject, frames = material.subject, material.bundle.frames
    found = optimism(material.bundle)
    found += [f"{subject.name}: {text}" for text in _beware(subject)] if subject else []
    if frames and not frames.within:
        found.append(
            "raw frames are decided otherwise than their files too often: only "
            f"{proportion(frames.agreement, frames.images)} agree, the target accepts {percent(frames.limit)} or more"
        )
    return found


def other_warnings(material: Material) -> list[str]:
    """What to beware of in the others and in the harness, each with those that it is about."""
    about: dict[str, list[str]] = {}
    for variant in (one for one in material.variants if one is not material.subject):
        for text in (*_beware(variant), *_doubts(variant)):
            about.setdefault(text, []).append(variant.name)
    found = [f"{', '.join(names)}: {text}" for text, names in about.items()]
    return found + [f"harness alone: {text}" for text in (material.harness.notes if material.harness else ())]


def not_shown(material: Material) -> list[str]:
    """What a reader might take from the report and must not."""
    bundle, runs = material.bundle, material.runs
    missing = [variant.name for variant in material.variants if not variant.run]
    skipped = f"Speed of {', '.join(missing)}: no run of these files was given." if missing else None
    candidates = (
        _machine_gap(material),
        skipped,
        _images_gap(material),
        None
        if bundle.frames
        else "Whether raw camera pictures are decided like image files: not measured in this bundle.",
        _sensors_gap(material),
        f"Older runs or runs of other files: {counted(material.ignored, 'run')} left aside."
        if material.ignored
        else None,
        f"Hours and days: each variant was timed once, for {_minutes(material)}, after its warm-up." if runs else None,
        "Other parts, cameras and light: mistakes are counted on the test images alone.",
        "Taking the picture, transport, moving the part: the clock runs from the encoded image in memory to the "
        "decision.",
    )
    return [gap for gap in candidates if gap]


def _beware(variant: Variant) -> list[str]:
    """What weakens what is said of a variant."""
    judged, selection = variant.artifact.check.judged, variant.artifact.selection
    refused = [f"not within the target on the test images, not to be deployed: {text}" for text in judged.refused]
    kept = [] if selection is None or selection.validated else [f"not validated: kept by {selection.on}"]
    notes = variant.summary.notes if variant.summary else ()
    return [*refused, *judged.doubts, *judged.too_few, *kept, *notes]


def _doubts(variant: Variant) -> list[str]:
    verdict = variant.summary.verdict if variant.summary else None
    return [verdict.reason] if verdict and verdict.outcome == "INCONCLUSIVE" else []


def _against_budget(budget: Budget, summary: Summary, verdict: Verdict) -> str:
    name, units = f"p{plain(budget.percentile)}", counted(summary.samples, "unit")
    if verdict.outcome == "FAIL":
        bound = f"its {name} is at least {milliseconds(summary.lower_ms, budget)} ms (99 % confidence, {units})"
        return f"misses {budget}: {bound}"
    if summary.upper_ms is None:
        return f"is undecided against {budget}: {units} are too few to bound its {name}"
    bound = f"its {name} is at most {milliseconds(summary.upper_ms, budget)} ms (99 % confidence, {units})"
    return f"meets {budget}: {bound}" if verdict.outcome == "PASS" else f"is undecided against {budget}: {bound}"


def _why(material: Material) -> str:
    choice = material.bundle.choice
    if choice is not None:
        return f"Chosen in the bundle: {choice.reason}."
    return "The bundle names no choice: this is the best of the measured variants."


def _machine_gap(material: Material) -> str | None:
    bundle = material.bundle
    here = {run.host.machine for run in material.runs} - {bundle.machine}
    if here:
        return (
            f"Speed on the target {bundle.target}: measured on {', '.join(sorted(here))}, not on {bundle.machine}: "
            "measure there with edgecnn bench."
        )
    return "Speed on another machine: each one needs its own measurement, with edgecnn bench."


def _images_gap(material: Material) -> str | None:
    images = next((run.images for run in material.runs), ())
    if not images:
        return None
    golden = all(image.name.startswith("golden/") for image in images)
    sizes = sorted(image.bytes for image in images)
    whose = "images that travel in the bundle" if golden else "images"
    middle = sizes[len(sizes) // 2] / 1024
    return (
        f"Speed with images of other sizes: {len(images)} {whose} were used, {middle:,.0f} KiB in the middle "
        f"({sizes[0] / 1024:,.0f} to {sizes[-1] / 1024:,.0f})."
    )


def _sensors_gap(material: Material) -> str | None:
    states = [state for run in material.runs for state in (run.before, run.after)]
    silent = [
        name
        for name, values in (
            ("temperature", [state.temperature_c for state in states]),
            ("frequency governor", [state.governor for state in states]),
            (
                "throttling",
                [state.pi_throttled if state.pi_throttled is not None else state.thermal_throttles for state in states],
            ),
        )
        if all(value is None for value in values)
    ]
    return (
        f"How hot and how fast the processor was ({', '.join(silent)}): this machine does not tell." if silent else None
    )


def _minutes(material: Material) -> str:
    seconds = [run.samples.wall_ns / 1e9 for run in material.runs]
    return f"{min(seconds):.0f} to {max(seconds):.0f} s"
