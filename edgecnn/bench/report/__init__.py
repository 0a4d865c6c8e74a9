"""A bundle with its runs to one page that opens offline: can it be trusted, where is it wrong, how slow is its tail."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn import __version__
from edgecnn.bench.report import answers, charts, findings, tables, tail_charts, variants
from edgecnn.bench.report.drawing import Chart
from edgecnn.bench.report.flips import galleries
from edgecnn.bench.report.folds import pooled_notes, pooled_table
from edgecnn.bench.report.glossary import WORDS
from edgecnn.bench.report.material import Material, gather, host_words
from edgecnn.bench.report.mistaken import class_table, mistakes_by_kind
from edgecnn.bench.report.tables import facts_table
from edgecnn.bench.report.tail import tail_of, tail_table
from edgecnn.bench.report.training import Training, evidence_table, read_training
from edgecnn.bench.report.wording import milliseconds, moment, proportion
from edgecnn.data.walk import refuse_no_folder
from edgecnn.documents import sha256_of_file, write_atomically
from edgecnn.errors import MissingExtra, UserError
from edgecnn.pooled import Pooled
from edgecnn.profiles import Budget
from edgecnn.progress import Progress

__all__ = ["write_report"]

_NEEDS = ("jinja2", "matplotlib")


def write_report(
    bundle_folder: Path,
    runs: Path | Sequence[Path],
    out: Path,
    data: Path | None = None,
    budget: Budget | None = None,
    run: Path | None = None,
    say: Progress = lambda text: None,
    pooled: Pooled | None = None,
) -> tuple[Path, Path]:
    """Write report.md and report.html into the folder `out`; returns their paths in this order.

    `runs`: what `edgecnn bench` wrote, files or folders of them; the latest run of each variant counts. `data`: the
    image folder, for pictures of flipped images (golden images otherwise). `budget`: the bundle's where None.
    `run`: the folder that was trained in, for its curves and the recipes that were compared. `say` is told of lines of
    `runs` that were skipped. `pooled`: what the folds say together of which the bundle is the first.
    The HTML loads nothing and runs no script. Raises MissingExtra without jinja2 and matplotlib; UserError: not a whole
    bundle, no runs of it, runs of several hosts, no such data folder, `out` inside the bundle.
    """
    for library in _NEEDS:
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, "report")
    if data is not None:
        refuse_no_folder(data, "the images that the bundle was made from")
    if out.resolve().is_relative_to(bundle_folder.resolve()):
        raise UserError(f"{out}: lies inside the bundle, whose files are listed by hash: choose a folder outside of it")
    material = gather(bundle_folder, runs, budget, say)
    content = _content(material, data, read_training(run) if run else None, pooled)
    paths = out / "report.md", out / "report.html"
    for path in paths:
        write_atomically(path, _render(f"page{path.suffix}.jinja", content))
    return paths


def _content(material: Material, data: Path | None, training: Training | None, pooled: Pooled | None) -> dict[str, Any]:
    """What both templates show."""
    return {
        "version": __version__,
        "bundle": material.bundle,
        "material": material,
        "subject": material.subject,
        "symbols": findings.SYMBOLS,
        "charts": {**_charts(material), "training": charts.training_curves(training)},
        **_upper(material, data, pooled),
        **_engineering(material, data),
        "pooled": pooled,
        "pooled_table": pooled_table(pooled) if pooled else None,
        "pooled_notes": pooled_notes(pooled) if pooled else (),
        "evidence": evidence_table(training) if training else None,
        "evidence_reason": training.evidence["reason"] if training and training.evidence else "",
        "symptoms": training.evidence["symptoms"] if training and training.evidence else (),
    }


def _upper(material: Material, data: Path | None, pooled: Pooled | None) -> dict[str, Any]:
    """The part for who decides about a line: verdict, mistakes, speed, what is open."""
    subject = material.subject
    groups = mistakes_by_kind(material, subject, data) if subject else None
    tail = tail_of(subject.run, subject.summary) if subject and subject.run and subject.summary else None
    return {
        "headline": findings.headline(material),
        "alarms": findings.alarms(material, pooled),
        "lead": answers.verdict_words(material),
        "answers": answers.answers(material),
        "groups": groups,
        "mistakes_line": answers.mistakes_line(subject, groups) if subject and groups is not None else "",
        "by_class": class_table(material, subject) if subject else None,
        "measured_on": f"measured on {host_words(subject.run)}" if subject and subject.run else "not measured",
        "tail": tail,
        "slowest": milliseconds(tail.summary.max_ms, material.budget) if tail else "",
        "clock": "from the encoded image in memory to the decision, one part after the other",
        "tail_table": tail_table(tail) if tail else None,
        "next_steps": answers.next_steps(material, groups),
        "warnings": findings.warnings(material),
        "other_warnings": findings.other_warnings(material),
        "not_shown": findings.not_shown(material),
        "words": facts_table(dict(WORDS), "word", "means"),
    }


def _engineering(material: Material, data: Path | None) -> dict[str, Any]:
    """What is folded."""
    bundle, subject = material.bundle, material.subject
    return {
        "network": findings.network_line(material),
        "why_not": variants.why_not_table(material),
        "speed": variants.speed_table(material),
        "speed_notes": findings.speed_notes(material),
        "engines": variants.engine_table(material),
        "engine_notes": findings.engine_notes(),
        "checks": variants.answers_table(material),
        "answer_notes": findings.answer_notes(material),
        "left_out": tables.left_out_table(bundle),
        "confusion": tables.confusion_table(subject.artifact.check, bundle.classes) if subject else None,
        "recall": tables.recall_table(material),
        "galleries": galleries(material, data),
        "frames": _frames(material),
        "calibration": [(a, tables.rungs_table(a)) for a in bundle.artifacts if a.precision == "int8"],
        "provenance": facts_table(_provenance(material), "what", "is"),
        "hashes": facts_table(_hashes(material), "what", "SHA-256"),
        "hosts": tables.host_table(material.runs),
        "host_facts": facts_table(_host(material), "host of the runs", "is"),
    }


def _charts(material: Material) -> dict[str, Chart | None]:
    subject = material.subject
    drawn: dict[str, Chart | None] = {"spread": None, "timeline": None}
    if subject is not None and subject.run is not None and subject.summary is not None:
        tail = tail_of(subject.run, subject.summary)
        drawn = {"spread": tail_charts.spread(tail, subject), "timeline": tail_charts.timeline(tail, subject)}
    return {
        **drawn,
        "histograms": charts.histograms(material),
        "stages": charts.stages(material),
        "accuracy": charts.accuracy_against_latency(material),
    }


def _frames(material: Material) -> Mapping[str, str] | None:
    frames = material.bundle.frames
    if frames is None:
        return None
    return {
        "equal decisions": f"{proportion(frames.agreement, frames.images)} of test images, 95 % interval",
        "the target accepts": f"at least {100 * frames.limit:g} %: {'within' if frames.within else 'not within'}",
        "pixels": f"{frames.mean_pixel_error:.2f} levels of 255 apart in the mean, {frames.max_pixel_error} at most",
        "logits": f"{frames.mean_logit_error:.3f} standard deviations apart in the mean, "
        f"{frames.max_logit_error:.2f} at most",
    }


def _provenance(material: Material) -> dict[str, str]:
    bundle, spec = material.bundle, material.bundle.preprocess
    provenance = bundle.provenance
    return {
        "bundle": f"{bundle.name}, for {bundle.target} ({bundle.machine}), made {moment(provenance.created)}",
        "model": provenance.model,
        "weights": provenance.weights,
        "recipe": provenance.recipe,
        "preprocessing": f"{spec.width}×{spec.height}, {spec.fit}, {spec.resize}",
        "exported with": ", ".join(f"{name} {version}" for name, version in provenance.tools.items()),
        "exported on": ", ".join(f"{name} {value}" for name, value in provenance.host.items()),
    }


def _hashes(material: Material) -> dict[str, str]:
    """Of what the report is about, so that nobody takes it for another's."""
    bundle, subject = material.bundle, material.subject
    files = subject.artifact.files if subject else ()
    splits = bundle.provenance.splits
    return {
        "bundle.json": sha256_of_file(material.folder / "bundle.json"),
        **{name: bundle.files[name].sha256 for name in files if name in bundle.files},
        "checkpoint.json": bundle.provenance.checkpoint_sha256,
        "target profile": bundle.provenance.target_sha256,
        **{f"images and labels of the {name} split": digest for name, digest in splits.items()},
    }


def _host(material: Material) -> dict[str, str]:
    host = material.runs[-1].host
    return {
        "board": host.board or "not told",
        "processor": host.cpu or "not told",
        "architecture": host.machine,
        "features": ", ".join(host.flags)
        if host.flags
        else "not told"
        if host.flags is None
        else "none of those asked for",
        "system": f"{host.system} {host.kernel}, Python {host.python}",
        "libraries": ", ".join(f"{name} {version}" for name, version in host.libraries.items()),
    }


def _render(template: str, content: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgecnn.bench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_for_markdown if template.endswith(".md.jinja") else None,
    )
    return environment.get_template(template).render({**content, "charts": _marked(content["charts"])})


def _marked(drawn: Mapping[str, Chart | None]) -> dict[str, Chart | None]:
    """Text that the template need not escape."""
    from markupsafe import Markup

    return {
        name: chart and Chart(Markup(chart.wide), Markup(chart.narrow))  # noqa: S704 (matplotlib escapes)
        for name, chart in drawn.items()
    }


def _for_markdown(value: object) -> object:
    """Names from users as plain text: no table is broken and no HTML or link begins."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = " ".join(value.split())
    for character in "\\`*_[]|#":
        text = text.replace(character, f"\\{character}")
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))  # noqa: S704
