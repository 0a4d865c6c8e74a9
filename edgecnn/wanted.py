"""Which variants are to be made, what is missing for them and how long they take: told before any work is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecnn import formats, quantize, runtimes
from edgecnn.errors import UserError
from edgecnn.installed import TRAINING, is_installed
from edgecnn.numbers import duration, plain
from edgecnn.origin import install_command
from edgecnn.profiles import QUICK, Target, VariantSpec, load_target, parse_budget, with_budget
from edgecnn.require import parse as parse_requirements


def asked_for(
    name: str, only: str | None = None, quick: bool = False, budget: str | None = None, require: str | None = None
) -> Target:
    """A target by name or file, as the options of a command line change it.

    UserError where a word is wrong, or where a library that a variant needs is missing: all of them in one line.
    """
    if require:
        parse_requirements(require)
    target = narrowed(with_budget(load_target(name, unfit), budget), only)
    return target.model_copy(update={"require": require or target.require, "quick": quick or target.quick})


def narrowed(target: Target, only: str | None) -> Target:
    """The target with those variants alone that `only` names: formats or variants, with commas between.

    A variant that the target has not is added where it is named in full and can be made. None: the target as it is.
    """
    if only is None:
        return target
    words = [word.strip().lower() for word in only.split(",")]
    others = {spec.variant: spec for spec in _every_variant() if spec.variant not in _names(target.variants)}
    unknown = [word for word in words if not _of(word, target.variants) and word not in others]
    if unknown:
        raise UserError(
            f"--only: {' and '.join(map(repr, unknown))} not in {target.name}: {', '.join(_names(target.variants))}; "
            f"named in full there are also {', '.join(others)}: write for example --only {target.variants[0].format}"
        )
    kept = [spec for spec in target.variants if any(spec in _of(word, target.variants) for word in words)]
    added = [others[word] for word in dict.fromkeys(words) if word in others]
    return target.model_copy(update={"variants": (*kept, *added)})


def unfit(spec: VariantSpec) -> list[str]:
    """Why a variant cannot be made or opened, each with its name; as of `edgecnn.profiles.load_target`."""
    wrong = []
    able = quantize.names() if spec.precision == "int8" else formats.names()
    if spec.format not in able:
        wrong.append(f"{spec.variant}: {spec.format!r} is not one of {', '.join(able)}")
    elif spec.precision != "int8" and spec.precision not in formats.get(spec.format).precisions:
        precisions = ", ".join(formats.get(spec.format).precisions)
        wrong.append(f"{spec.variant}: {spec.precision!r} is not one of {precisions}")
    if spec.io == "int8" and (spec.format, spec.precision) != ("litert", "int8"):
        wrong.append(f"{spec.variant}: io 'int8' is for litert-int8 alone")
    if spec.runtime not in runtimes.names():
        wrong.append(f"{spec.variant}: runtime {spec.runtime!r} is not one of {', '.join(runtimes.names())}")
    elif spec.format in able and spec.format not in runtimes.get(spec.runtime).runs:
        wrong.append(f"{spec.variant}: {spec.runtime} does not open {spec.format}")
    return wrong


@dataclass(frozen=True)
class Missing:
    """A library that is not installed."""

    library: str
    extra: str
    purpose: str
    """A variant, or what else it is for."""


def missing_for(target: Target) -> list[Missing]:
    """Libraries of training, and of each variant's converter and engine, that are not installed."""
    found = [Missing(library, "train", "training") for library in TRAINING if not is_installed(library)]
    trains = not found
    for spec in target.variants:
        writes = formats.get(spec.format)
        needed = [*writes.libraries, *runtimes.get(spec.runtime).libraries]
        if trains and spec.precision == "int8":  # quantizers cannot be asked without torch; the extra is the same
            needed = [*quantize.declared(spec.format).libraries, *runtimes.get(spec.runtime).libraries]
        told = [one.library for one in found if one.purpose == "training"]
        lacking = [one for one in dict.fromkeys(needed) if one not in told and not is_installed(one)]
        if not trains and writes.extra == "train":
            continue  # the same command installs it
        found += [Missing(library, writes.extra, spec.variant) for library in lacking]
    return found


def refuse_missing(target: Target, besides: Sequence[Missing] = ()) -> None:
    """UserError with everything that is missing for a target, and what installs it.

    `besides`: what is missing for something that can be done without; named only together with the rest.
    """
    for spec in target.variants:
        told = runtimes.get(spec.runtime).missing
        if told is not None and not runtimes.installed(spec.runtime):
            raise UserError(f"target {target.name}: {spec.variant}: {told()}")
    missing = missing_for(target)
    if not missing:
        return
    purposes: dict[str, list[str]] = {}
    for one in (*missing, *besides):
        purposes.setdefault(one.library, []).append(one.purpose)
    groups: dict[str, list[str]] = {}
    for library, names in purposes.items():
        groups.setdefault(", ".join(names), []).append(library)
    words = "; ".join(f"{', '.join(libraries)} (for {names})" for names, libraries in groups.items())
    raise UserError(f"not installed: {words}: {_installs((*missing, *besides))}{_without(target, missing)}")


def missing_for_report() -> list[Missing]:
    """Libraries of the report that are not installed: without them it is not written, and all else is done."""
    return [Missing(name, "report", "the report") for name in ("jinja2", "matplotlib") if not is_installed(name)]


def foretold(
    target: Target, besides: Sequence[Missing] = (), minutes: float | None = None, samples: int = 0
) -> list[str]:
    """What will be made and about how long it takes; `minutes`: of training's time box, `samples`: of the bench."""
    formats_in_order: dict[str, list[str]] = {}
    for spec in target.variants:
        formats_in_order.setdefault(spec.format, []).append(spec.precision)
    variants = " · ".join(f"{name} {', '.join(precisions)}" for name, precisions in formats_in_order.items())
    lines = [f"to make for {target.name}: {variants}"]
    if besides:
        names = ", ".join(one.library for one in besides)
        lines.append(f"not installed: {names}, so {besides[0].purpose} is not written: {_installs(besides)}")
    return [*lines, f"takes about: {'; '.join(_times(target, minutes, samples))}"]


def _times(target: Target, minutes: float | None, samples: int) -> list[str]:
    int8 = sum(spec.precision == "int8" for spec in target.variants)
    words = []
    if minutes == 0:
        words.append("training: the epochs of one recipe")
    elif minutes is not None:
        words.append(f"training {plain(minutes)} min at most to compare recipes, then the epochs of one")
    if int8 < len(target.variants):
        words.append("seconds a float variant")
    if int8 and target.quick:
        words.append(f"one rung an int8 variant ({QUICK})")
    elif int8:
        limit = duration(60 * int8 * target.int8_minutes)
        words.append(f"at most {limit} and a last rung for {int8} in int8 (--quick: first rung only)")
    if samples:
        seconds = len(target.variants) * samples * parse_budget(target.budget).milliseconds / 1e3
        words.append(f"bench {duration(seconds)} where each image takes the whole budget")
    return words


def _installs(missing: Iterable[Missing]) -> str:
    """One command for all of it. Each extra that exports has what trains in it."""
    extras = list(dict.fromkeys(one.extra for one in missing))
    if any(extra.startswith("export-") for extra in extras):
        extras = [extra for extra in extras if extra != "train"]
    return install_command(*extras)


def _without(target: Target, missing: Sequence[Missing]) -> str:
    """How to go on with the variants that nothing is missing for; nothing where there are none."""
    lacking = {one.purpose for one in missing}
    able = [spec.variant for spec in target.variants if spec.variant not in lacking]
    if not able or "training" in lacking:
        return ""
    whole = {spec.format for spec in target.variants} - {
        spec.format for spec in target.variants if spec.variant in lacking
    }
    words = dict.fromkeys(name.split("-")[0] if name.split("-")[0] in whole else name for name in able)
    return f", or leave them out: --only {','.join(words)}"


def _every_variant() -> list[VariantSpec]:
    """All that can be made and opened, each in the first engine that opens it."""
    found = []
    for name in formats.names():
        engine = next((one for one in runtimes.names() if name in runtimes.get(one).runs), None)
        precisions = [*formats.get(name).precisions, *(["int8"] if name in quantize.names() else [])]
        for precision in precisions if engine else ():
            found.append(VariantSpec.model_validate({"format": name, "precision": precision, "runtime": engine}))
    return found


def _of(word: str, variants: Sequence[VariantSpec]) -> list[VariantSpec]:
    return [spec for spec in variants if word in (spec.format, spec.variant)]


def _names(variants: Sequence[VariantSpec]) -> list[str]:
    return [spec.variant for spec in variants]
