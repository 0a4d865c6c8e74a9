"""A bundle with its runs to one page that opens offline: the verdict first, then all that it rests on."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn import __version__
from edgecnn.bench.report import charts, findings, tables
from edgecnn.bench.report.flips import galleries
from edgecnn.bench.report.folds import pooled_notes, pooled_table
from edgecnn.bench.report.material import Material, gather
from edgecnn.bench.report.training import Training, evidence_table, read_training
from edgecnn.bench.report.wording import moment, proportion
from edgecnn.data.walk import refuse_no_folder
from edgecnn.documents import write_atomically
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
    bundle, subject = material.bundle, material.subject
    provenance = bundle.provenance
    return {
        "version": __version__,
        "bundle": bundle,
        "material": material,
        "subject": subject,
        "headline": findings.headline(material),
        "symbols": findings.SYMBOLS,
        "network": findings.network_line(material),
        "variants": tables.variants_table(material),
        "table_notes": findings.table_notes(material),
        "alarms": findings.alarms(material, pooled),
        "pooled": pooled,
        "pooled_table": pooled_table(pooled) if pooled else None,
        "pooled_notes": pooled_notes(pooled) if pooled else (),
        "left_out": tables.left_out_table(bundle),
        "charts": {**_charts(material), "training": charts.training_curves(training)},
        "evidence": evidence_table(training) if training else None,
        "evidence_reason": training.evidence["reason"] if training and training.evidence else "",
        "symptoms": training.evidence["symptoms"] if training and training.evidence else (),
        "confusion": tables.confusion_table(subject.artifact.check, bundle.classes) if subject else None,
        "recall": tables.recall_table(material),
        "galleries": galleries(material, data),
        "frames": _frames(material),
        "calibration": [(a, tables.rungs_table(a)) for a in bundle.artifacts if a.precision == "int8"],
        "provenance": tables.facts_table(_provenance(material), "what", "is"),
        "splits": tables.facts_table(provenance.splits, "split", "SHA-256 of its images' hashes and labels"),
        "hosts": tables.host_table(material.runs),
        "host_facts": tables.facts_table(_host(material), "host of the runs", "is"),
        "warnings": findings.warnings(material),
        "not_shown": findings.not_shown(material),
    }


def _charts(material: Material) -> dict[str, str | None]:
    return {
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
        "checkpoint, SHA-256": provenance.checkpoint_sha256,
        "preprocessing": f"{spec.width}×{spec.height}, {spec.fit}, {spec.resize}",
        "exported with": ", ".join(f"{name} {version}" for name, version in provenance.tools.items()),
        "exported on": ", ".join(f"{name} {value}" for name, value in provenance.host.items()),
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
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("edgecnn.bench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_for_markdown if template.endswith(".md.jinja") else None,
    )
    drawn = {name: Markup(svg or "") for name, svg in content["charts"].items()}  # noqa: S704 (matplotlib escapes)
    return environment.get_template(template).render({**content, "charts": drawn})


def _for_markdown(value: object) -> object:
    """Names from users as plain text: no table is broken and no HTML or link begins."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = " ".join(value.split())
    for character in "\\`*_[]|#":
        text = text.replace(character, f"\\{character}")
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))  # noqa: S704
