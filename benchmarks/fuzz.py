"""Spoilt images, documents, model files, weights and folders, thousands of each: what becomes of them.

    make fuzz                                            # 20 minutes, two processes
    python benchmarks/fuzz.py [--minutes 20] [--inputs 100000] [--seed 1] [--kind onnx]

Every kind of `tests/fuzz/targets.py` gets a share of the inputs, in a process of its own, so that a crash or a hang is
seen. Nothing may come of an input but an exit code of 0, 1, 2 or 3, in less than 30 s and 2 GiB, in one line where it
is a mistake, and without half a result. Writes benchmarks/results/fuzz.json; exit code 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgecnn.bench.host import fingerprint
from tests.fuzz.campaign import LONGEST_S, MOST_MIB, Outcome, fuzz
from tests.fuzz.targets import TARGETS

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SHARES = {"commands": 0.005, "folders": 0.04, "engines": 0.06, "tflite": 0.06}
"""Of all inputs, for kinds that take longer; the others share what is left."""


def main() -> None:
    """Hunt, write the result, print a line a kind."""
    arguments = _arguments()
    kinds = arguments.kind or list(TARGETS)
    plain = [kind for kind in kinds if kind not in SHARES]
    left = 1 - sum(SHARES[kind] for kind in kinds if kind in SHARES)
    until = time.monotonic() + 60 * arguments.minutes

    def one(kind: str) -> Outcome:
        share = SHARES.get(kind, left / max(1, len(plain)))
        with tempfile.TemporaryDirectory(prefix="edgecnn-fuzz-") as folder:
            seconds = max(10.0, until - time.monotonic())
            found = fuzz(kind, seconds, round(share * arguments.inputs), arguments.seed, Path(folder))
        print(
            f"{kind}: {found.inputs} inputs, exit codes {found.exit_codes}, slowest {found.slowest_s:.1f} s, "
            f"{found.peak_mib} MiB, {len(found.faults)} faults",
            flush=True,
        )
        for fault in found.faults:
            print(f"  {fault['seen']}\n  input, hexadecimal: {fault['input']}", flush=True)
        return found

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(one, kinds))
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "host": fingerprint().model_dump(mode="json"),
        "seed": arguments.seed,
        "limits": {"seconds": LONGEST_S, "mib": MOST_MIB},
        "inputs": sum(found.inputs for found in outcomes),
        "kinds": [asdict(found) for found in outcomes],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    sys.exit(any(found.faults for found in outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=tuple(TARGETS), action="append")
    return parser.parse_args()


if __name__ == "__main__":
    main()
