"""What INT8 decides on each instruction set: a bundle's variants on emulated and held-back processors.

    python benchmarks/instruction_sets.py bundle/ --data parts/ [--images 48] [--device x86-64-v2 …] [--variant …]
    python benchmarks/instruction_sets.py --table

Each variant runs on the same test images, spread over the classes, on every device of `edgecnn rehearse` and on this
machine as it is: x86-64-v2 and -v3 in the emulator or on this machine held back, the Raspberry Pis in theirs. Accuracy
and flips only: nothing here is timed. Appends a row for each variant and device to
benchmarks/results/instruction_sets.jsonl; a cell of the table without a row was not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import runtimes
from edgecnn.artifact import Artifact, Bundle, load_bundle
from edgecnn.bench.host import fingerprint
from edgecnn.data import find_images
from edgecnn.parity import REFERENCE_FILE, load_reference
from edgecnn.processor import instruction_set_here
from edgecnn.rehearse.boards import BOARDS
from edgecnn.rehearse.cache import cache_folder
from edgecnn.rehearse.job import Job
from edgecnn.rehearse.levels import LEVELS
from edgecnn.rehearse.process import Machine, Ran, native, run
from edgecnn.rehearse.setups import device, set_up
from edgecnn.rehearse.wheels import NoWheel

RESULTS = Path(__file__).parent / "results" / "instruction_sets.jsonl"
NATIVE = "this machine"
DEVICES = (NATIVE, *(one.name for one in (*LEVELS, *BOARDS)))
COLUMNS = {
    "x86-64-v2": "SSE4",
    "x86-64-v3": "AVX2",
    "x86-64-avx512": "AVX-512, no VNNI",
    "x86-64-vnni": "VNNI",
    "raspberry-pi-3": "Cortex-A53",
    "raspberry-pi-4": "Cortex-A72",
    "raspberry-pi-5": "Cortex-A76",
}
"""Device, or instruction set of a machine that was measured as it is, to the table's column."""
_START_S, _IMAGE_S = 300, 60


@dataclass(frozen=True)
class Pictures:
    """The test images that are run."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    trained: np.ndarray
    """Eager fp32's decisions."""


def main() -> None:
    """Run the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, help="the images that the bundle was made from")
    parser.add_argument("--name", help="of the data, in the rows; default: the folder's")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--device", nargs="+", default=DEVICES, choices=DEVICES)
    parser.add_argument("--variant", nargs="+")
    parser.add_argument("--table", action="store_true", help="print the table of what was run before")
    given = parser.parse_args()
    if not given.table:
        if given.bundle is None or given.data is None:
            parser.error("give a bundle and --data, or --table")
        _measure(given)
    print("\n".join(table([json.loads(line) for line in RESULTS.read_text().splitlines()])))


def _measure(given: argparse.Namespace) -> None:
    bundle = load_bundle(given.bundle)
    artifacts = [one for one in bundle.artifacts if one.variant in (given.variant or [one.variant])]
    pictures = _pictures(given.bundle, given.data, given.images)
    for name in given.device:
        for artifact, where, ran in _runs(given.bundle, bundle, artifacts, pictures, name):
            row = _row(bundle, artifact, pictures, given.name or given.data.name, where, ran)
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{name}: {artifact.variant}: {row['top1']} {row['reason'] or ''}", file=sys.stderr, flush=True)


def _pictures(folder: Path, data: Path, most: int) -> Pictures:
    reference = load_reference(folder / REFERENCE_FILE)
    found = find_images(data, reference.sha256)
    order = np.argsort(reference.labels, kind="stable")
    places = order[np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)]
    paths = tuple(found[reference.sha256[place]] for place in places)
    return Pictures(paths, reference.labels[places], reference.logits[places].argmax(1))


Where = Mapping[str, str | None]
"""device, how and the instruction set that it should be."""


def _runs(
    folder: Path, bundle: Bundle, artifacts: Sequence[Artifact], pictures: Pictures, name: str
) -> Iterator[tuple[Artifact, Where, Ran]]:
    """Each variant on a device."""
    if name == NATIVE:
        for artifact in artifacts:
            here = instruction_set_here(runtimes.get(artifact.runtime).obeys)
            yield (
                artifact,
                {"device": here, "how": NATIVE, "expected": here},
                _run(native(), folder, bundle, artifact, pictures),
            )
        return
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    ready = set_up(device(name), {artifact.runtime for artifact in artifacts}, cache_folder(None), False, say)
    for artifact in artifacts:
        with tempfile.TemporaryDirectory() as empty:
            try:
                place = ready.place(artifact.runtime, Path(empty))
            except NoWheel as error:
                yield artifact, {"device": name, "how": None, "expected": None}, Ran(None, "refused", str(error), {})
                continue
            where = {"device": name, "how": place.how, "expected": place.instruction_set}
            yield artifact, where, _run(place.machine, folder, bundle, artifact, pictures)


def _run(machine: Machine, folder: Path, bundle: Bundle, artifact: Artifact, pictures: Pictures) -> Ran:
    job = Job(
        model=str(folder.resolve() / artifact.files[0]),
        runtime=artifact.runtime,
        precision=artifact.precision,
        threads=1,
        preprocess=bundle.preprocess,
        images=tuple(str(path.resolve()) for path in pictures.paths),
        out="",
        log=None,
    )
    return run(machine, job, _START_S + _IMAGE_S * len(pictures.paths))


def _row(
    bundle: Bundle, artifact: Artifact, pictures: Pictures, data: str, where: Where, ran: Ran
) -> Mapping[str, Any]:
    decided = None
    reason = ran.reason
    if ran.answer is not None and where["expected"] not in (None, ran.answer.instruction_set):
        reason = f"ran on {ran.answer.instruction_set}"
    elif ran.answer is not None:
        decided = np.frombuffer(bytes.fromhex(ran.answer.logits), "<f4").reshape(len(pictures.paths), -1).argmax(1)
    return {
        "network": bundle.provenance.model,
        "data": data,
        "variant": artifact.variant,
        "rung": artifact.notes.get("rung"),
        "device": where["device"],
        "how": where["how"],
        "images": len(pictures.paths),
        "fp32_top1": float((pictures.trained == pictures.labels).mean()),
        "top1": None if decided is None else float((decided == pictures.labels).mean()),
        "flips": None if decided is None else int((decided != pictures.trained).sum()),
        "reason": reason,
        "versions": ran.answer.versions if ran.answer else {},
        "host": {"cpu": fingerprint().cpu, "instruction_set": instruction_set_here((), {})},
        "date": datetime.now(UTC).date().isoformat(),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Engines by instruction sets: top-1 (points lost), images that flip. The latest row of a cell counts."""
    cells: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["variant"].endswith("int8"):
            cells.setdefault((row["network"], row["data"], row["variant"]), {})[row["device"]] = row
    columns = [name for name in COLUMNS if name != "x86-64-avx512" or any(name in line for line in cells.values())]
    lines = [
        f"| network, data | variant | {' | '.join(COLUMNS[name] for name in columns)} |",
        "|" + "---|" * (2 + len(columns)),
    ]
    for (network, data, variant), line in sorted(cells.items()):
        told = [_cell(line.get(name)) for name in columns]
        lines.append(f"| {network}, {data} | {variant} | {' | '.join(told)} |")
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run here"
    if row["top1"] is None:
        return "does not run"
    lost = 100 * (row["fp32_top1"] - row["top1"])
    return f"{100 * row['top1']:.1f} % ({lost:+.1f}), {row['flips']} of {row['images']}"


if __name__ == "__main__":
    main()
