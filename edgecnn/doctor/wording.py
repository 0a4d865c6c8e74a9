"""A diagnosis as lines: area, finding, what to do."""

from __future__ import annotations

from edgecnn.doctor.libraries import Converter, Engine, Extra, Readiness, numbers
from edgecnn.doctor.machine import Machine, Processor

_LEAST_DISK = 2 * 1024**3
_GIB = 1024**3
_LEAST_GLIBC = {"": (2, 28), "openvino": (2, 35)}
"""Of the wheels: of the base install, and on aarch64 of single engines."""


def engine_line(engine: Engine) -> tuple[str, str, str]:
    """An engine: whether it loads."""
    library = engine.library
    state = library.problem or f"loads; opens {', '.join(engine.opens)}"
    version = f" {library.version}" if library.version else ""
    return f"engine {engine.runtime}", f"{library.name}{version}: {state}", engine.fix or ""


def extra_line(extra: Extra) -> tuple[str, str, str]:
    """An extra: what is missing of it."""
    finding = f"not installed: {', '.join(extra.missing)}" if extra.missing else "installed"
    return f"extra {extra.name}", finding, extra.fix or ""


def converter_line(converter: Converter) -> tuple[str, str, str]:
    """A format: whether it can be written."""
    can = f"can be exported in {', '.join(converter.precisions)}"
    finding = f"cannot be exported: {', '.join(converter.missing)} missing" if converter.missing else can
    return f"format {converter.format}", finding, converter.fix or ""


def verb_line(verb: Readiness) -> tuple[str, str, str]:
    """A verb: whether it can be used."""
    needs = f"needs {' and '.join(verb.needs)}" if verb.needs else "needs the base install"
    if verb.engines:
        needs += " and the engine of each variant"
    return f"edgecnn {verb.name}", f"{'ready' if verb.ready else 'not ready'}; {needs}", verb.fix or ""


def processor_lines(processor: Processor) -> list[tuple[str, str, str]]:
    """The processor, what it means for int8, and its clock."""
    features = (
        "features not told" if processor.features is None else ", ".join(processor.features) or "no known feature"
    )
    name = processor.board or processor.model or "not told"
    rows = [
        ("processor", f"{name} ({processor.machine}): {features}", ""),
        ("int8", processor.int8, ""),
        ("processors", _cores(processor), ""),
    ]
    clock = [
        f"governor {processor.governor}" if processor.governor else "governor not told",
        f"{processor.mhz:,.0f} MHz" if processor.mhz else "frequency not told",
        "temperature not told" if processor.temperature_c is None else f"{processor.temperature_c:.0f} °C",
    ]
    steady = processor.governor in (None, "performance")
    rows.append(
        ("clock", ", ".join(clock), "" if steady else "sudo cpupower frequency-set -g performance, for steady runs")
    )
    if processor.throttled is not None:
        found = ", ".join(processor.throttled) or "none"
        rows.append(("throttling", found, "cool the board, check its power supply" if processor.throttled else ""))
    return rows


def _cores(processor: Processor) -> str:
    def told(value: float | None) -> str:
        return "not told" if value is None else f"{value:g}"

    return (
        f"{told(processor.logical)} logical, {told(processor.affinity)} by affinity, "
        f"{told(processor.usable)} usable with the cgroup's limit"
    )


def machine_lines(machine: Machine) -> list[tuple[str, str, str]]:
    """Memory, disk, system and C library."""
    memory = "not told"
    if machine.memory is not None and machine.memory_available is not None:
        memory = f"{machine.memory / _GIB:.1f} GiB, {machine.memory_available / _GIB:.1f} GiB available"
    room = "" if machine.disk_free >= _LEAST_DISK else "free some: training and export write about 1 GiB"
    return [
        ("memory", memory, ""),
        ("disk", f"{machine.disk_free / _GIB:.1f} GiB free in the current folder", room),
        ("system", f"{machine.system}, {machine.python}", ""),
        ("libc", machine.libc or "not glibc, or not told", _libc_advice(machine)),
    ]


def _libc_advice(machine: Machine) -> str:
    if not machine.libc.startswith("glibc"):
        return "" if not machine.system.startswith("Linux") else "the engines' wheels need glibc: use another system"
    version = numbers(machine.libc.split()[1])[:2]
    least = _LEAST_GLIBC[""]
    if version < least:
        return f"the engines' wheels need glibc {least[0]}.{least[1]}: use a newer system"
    engines = [
        name for name, wanted in _LEAST_GLIBC.items() if name and version < wanted and "aarch64" in machine.system
    ]
    return f"too old for the wheels of {', '.join(engines)}: use a newer system" if engines else ""
