"""The first answers of a report, for who decides whether a line may run on it: plain words, one number each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecnn.bench import Summary, Verdict
from edgecnn.bench.report.findings import SYMBOLS
from edgecnn.bench.report.material import Material, Variant
from edgecnn.bench.report.mistaken import Group
from edgecnn.bench.report.wording import (
    count_of,
    counted,
    limit_words,
    milliseconds,
    of_parts,
    percent,
)
from edgecnn.bench.stats import Outcome
from edgecnn.mistakes import Share, mistakes_of
from edgecnn.numbers import plain


@dataclass(frozen=True)
class Answer:
    """One question, its answer in large, and a sentence."""

    question: str
    large: str
    words: str
    section: str
    """Where the report says more: an id."""
    outcome: Outcome | None = None
    """Of what has a limit; nobody sets one for mistakes."""


def answers(material: Material) -> list[Answer]:
    """Speed, missed defects, false alarms, the weakest class: of the variant that the report is about."""
    subject = material.subject
    if subject is None:
        return [_speed(material, None)]
    found = mistakes_of(material.bundle, subject.artifact.check)
    check = subject.artifact.check
    answered = [_speed(material, subject)]
    if found.missed is not None and found.false_alarms is not None:
        answered += [
            _mistake("Missed defects", found.missed, "defects were called good", check.reference_missed_defects),
            _mistake(
                "False alarms", found.false_alarms, "good parts were called a defect", check.reference_false_alarms
            ),
        ]
    else:
        words = f"test images were decided right ({percent(found.right.value)}). {_least(found.right)}"
        answered.append(Answer("Right decisions", count_of(found.right), words, "wrong"))
    if found.weakest is not None:
        name, share = found.weakest
        words = f"parts of class {name!r} were right ({percent(share.value)}). {_least(share)}"
        answered.append(Answer("Weakest class", count_of(share), words, "wrong"))
    return answered


def verdict_words(material: Material) -> str:
    """Speed and mistakes in one or two sentences."""
    subject = material.subject
    if subject is None:
        return "This bundle holds no variant that may be used."
    found = mistakes_of(material.bundle, subject.artifact.check)
    speed = {
        "PASS": "is fast enough on this machine",
        "FAIL": "is too slow on this machine",
        "INCONCLUSIVE": "may or may not be fast enough: that is not decided",
    }[material.overall.outcome]
    if subject.summary is None:
        speed = "was not measured"
    if material.bundle.unusable(subject.artifact) is not None:
        speed = "must not be used"
    role = "the chosen variant" if subject.chosen else "the best variant that was measured"
    start = f"{subject.name}, {role}, {speed}."
    if found.missed is None or found.false_alarms is None:
        return f"{start} Of {found.right.of:,} test images it decided {found.right.count:,} right."
    return (
        f"{start} Of {counted(found.missed.of, 'defect')} it missed {found.missed.count:,}; of "
        f"{counted(found.false_alarms.of, 'good part')} it called {found.false_alarms.count:,} a defect."
    )


def mistakes_line(variant: Variant, groups: Sequence[Group]) -> str:
    """How many mistakes of which kinds."""
    images, wrong = variant.artifact.check.images, sum(group.count for group in groups)
    kinds = ", ".join(f"{group.count:,} {group.name.lower()}" for group in groups if group.kind != "all")
    return f"{variant.name} decided {wrong:,} of {images:,} test images wrongly" + (f": {kinds}." if kinds else ".")


def next_steps(material: Material, groups: Sequence[Group] | None) -> list[str]:
    """What to do, the most pressing first."""
    subject = material.subject
    if subject is None:
        return ["Make the bundle again: no variant of it may be used."]
    steps = [*_speed_steps(material, subject)]
    veto = material.bundle.unusable(subject.artifact)
    if veto is not None:
        steps.insert(0, f"Do not use {subject.name}: {veto}.")
    found = mistakes_of(material.bundle, subject.artifact.check)
    if groups:
        weakest = f", most of all of the weakest class, {found.weakest[0]!r}" if found.weakest else ""
        steps.append(
            f"Look at the pictures of the {counted(sum(group.count for group in groups), 'mistake')}. Where a label is "
            f"wrong, correct it. Where it is right, train with more images like it{weakest}."
        )
    if material.bundle.good_class is None:
        steps.append(
            "Say which class is the good one (run --good CLASS): then missed defects and false alarms are counted."
        )
    elif found.missed is not None:
        steps.append(
            f"Decide whether {count_of(found.missed)} missed defects are few enough: the bundle has no limit for that. "
            f"With {counted(found.missed.of, 'defect')} tested, up to {percent(found.missed.interval.high)} must be "
            "expected; more test images of defects narrow this down."
        )
    needed = subject.artifact.check.judged.images_to_show
    if needed:
        steps.append(
            f"Test with about {needed:,} images in all: these {subject.artifact.check.images:,} are too few to show "
            f"that {subject.name} loses no more than {limit_words(material.bundle.accuracy_loss_limit)} against the "
            "network as trained."
        )
    return steps


def _speed(material: Material, subject: Variant | None) -> Answer:
    outcome = material.overall.outcome
    veto = material.bundle.unusable(subject.artifact) if subject else None
    if veto is not None:
        words = f"Must not be used: {veto}."
    elif subject is None or subject.summary is None or subject.summary.verdict is None:
        words = "It was not measured."
    else:
        words = _speed_words(material, subject.summary, subject.summary.verdict)
    return Answer("Fast enough?", f"{SYMBOLS[outcome]} {outcome}", words, "speed", outcome)


def _speed_words(material: Material, summary: Summary, verdict: Verdict) -> str:
    budget, parts = material.budget, of_parts(material.budget.percentile)
    limit = f"{plain(budget.milliseconds)} ms"
    low, high = milliseconds(summary.lower_ms, budget), milliseconds(summary.upper_ms, budget)
    if verdict.outcome == "PASS":
        return f"{parts} take at most {high} ms (99 % sure). The limit is {limit}."
    if verdict.outcome == "FAIL":
        return f"Fewer than {parts} are within the limit of {limit}: {parts} need {low} ms or more (99 % sure)."
    if summary.upper_ms is None:
        return f"Not decided: {counted(summary.samples, 'part')} are too few. The limit is {limit}."
    known = f"between {low} and {high} ms" if summary.lower_ms is not None else f"at most {high} ms"
    return f"Not decided. {parts} take {known} (99 % sure). The limit is {limit}. Why, and what to do: section 4."


def _mistake(question: str, share: Share, what: str, before: int | None) -> Answer:
    trained = "" if before is None else f" The network as trained: {before:,}."
    words = f"{what} ({percent(share.value)}). Expect up to {percent(share.interval.high)} (95 % sure).{trained}"
    return Answer(question, count_of(share), words, "wrong")


def _least(share: Share) -> str:
    if share.interval.low < 0.001:
        return "Too few were tested to expect any share."
    return f"Expect at least {percent(share.interval.low)} (95 % sure)."


def _speed_steps(material: Material, subject: Variant) -> list[str]:
    summary, budget = subject.summary, material.budget
    if summary is None or summary.verdict is None:
        return ["Measure it on the machine that it is for, with edgecnn bench."]
    if summary.verdict.outcome == "FAIL":
        return [
            f"It is too slow for {plain(budget.milliseconds)} ms: use smaller images, a narrower network or a faster "
            "machine, or raise the limit."
        ]
    if summary.verdict.outcome == "INCONCLUSIVE":
        return [f"Measure the speed again: {summary.verdict.reason}."]
    return []
