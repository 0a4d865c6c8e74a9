"""What is fuzzed: each kind of input, how it is spoilt, and the public function or command that reads it."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from edgecnn.errors import UserError
from tests.conftest import call
from tests.fuzz import seeds
from tests.fuzz.mutations import documents, layouts, spoilt, to_json, to_toml, write_layout

EXIT_CODES = (0, 1, 2, 3)


class Wrong(Exception):
    """What no input may lead to: a traceback, another exit code, several lines for one mistake, half a result."""


@dataclass(frozen=True)
class Fuzzed:
    """One kind of input, made ready in a folder of its own."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], int]
    """To the exit code; raises where something is wrong."""


def in_one_line(read: Callable[[], object]) -> int:
    """The exit code that a function's outcome has on the command line."""
    try:
        read()
    except UserError as error:
        text = str(error)
        if not text.strip() or not text.isprintable():
            raise Wrong(f"the message of a mistake is not one line: {text!r}") from error
        return 2
    return 0


def command(*words: object, out: Path | None = None) -> int:
    """Exit code of a command line in this process; nothing may be left at `out` where it ends with 2."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = call(*words)
    if code not in EXIT_CODES or "Traceback" in said.getvalue():
        raise Wrong(f"exit code {code}: {said.getvalue()[-2000:]}")
    if out is not None:
        if code == 2 and out.exists():
            raise Wrong(f"exit code 2, and {out.name} was written: {said.getvalue()[-300:]}")
        shutil.rmtree(out, ignore_errors=True)
    return code


def _file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], int]:
    """Write the bytes and read the file."""

    def run(content: bytes) -> int:
        path.write_bytes(content)
        return in_one_line(lambda: read(path))

    return run


def _images(folder: Path) -> Fuzzed:
    from edgecnn.artifact import Preprocess
    from edgecnn.imaging import Preparer, decode_whole

    preparer = Preparer(Preprocess(height=seeds.SIDE, width=seeds.SIDE))

    def read(content: bytes) -> int:
        codes = [in_one_line(lambda one=one: one(content)) for one in (preparer.probe, preparer.prepare, decode_whole)]
        if codes[0] == 0 != codes[1] and b"II*" not in content[:4] and b"MM" not in content[:2] and codes[2] == 0:
            raise Wrong(f"taken by one reader and refused by another: {codes}")
        return codes[0]

    return Fuzzed(spoilt(seeds.images()), read)


def _labels(folder: Path) -> Fuzzed:
    from edgecnn.adopt.labels import read_labels

    texts = ["good\nscratch\nhole\n", "\ufeffgut\r\nKratzer\r\n", "1\n10\n2\n", "e\u0301\n\u00e9\n"]
    files = [*(text.encode() for text in texts), "a\nb\n".encode("utf-16"), "Pr\xfcf\n".encode("latin-1")]
    anything = st.one_of(spoilt(files), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
    return Fuzzed(anything, _file(folder / "labels.txt", read_labels))


def _preprocess(folder: Path) -> Fuzzed:
    from edgecnn.blame.description import read_description

    given = [seeds.preprocess()]
    inputs = st.one_of(documents(given, to_toml), spoilt([to_toml(seeds.parsed(one)) for one in given]))
    return Fuzzed(inputs, _file(folder / "pre.toml", read_description))


def _target(folder: Path) -> Fuzzed:
    from edgecnn.profiles import load_target

    given = [seeds.target()]
    inputs = st.one_of(documents(given, to_toml), spoilt([to_toml(seeds.parsed(one)) for one in given]))
    return Fuzzed(inputs, _file(folder / "target.toml", lambda path: load_target(str(path))))


def _bundle(folder: Path) -> Fuzzed:
    from edgecnn.artifact import load_bundle
    from tests.bench.conftest import write_tiny_bundle

    made = write_tiny_bundle(folder / "bundle")
    given = [(made / "bundle.json").read_bytes()]
    inputs = st.one_of(documents(given, to_json), spoilt(given))
    return Fuzzed(inputs, _file(made / "bundle.json", lambda path: load_bundle(path.parent)))


def _onnx(folder: Path) -> Fuzzed:
    from edgecnn.adopt.sources import take
    from tests.fuzz.protobuf import spoilt_graphs

    given, pre = seeds.networks(folder), folder / "pre.toml"
    pre.write_bytes(to_toml({**seeds.parsed(seeds.preprocess()), "height": 8, "width": 8}))
    inputs = st.one_of(spoilt(given), spoilt_graphs(given), spoilt_graphs(given))
    return Fuzzed(inputs, _file(folder / "net.onnx", lambda path: take(path, None, pre)))


def _tflite(folder: Path) -> Fuzzed:
    from edgecnn.metadata import read_tflite
    from edgecnn.modelfiles.tflite import inputs_and_outputs, operations

    def read(path: Path) -> None:
        read_tflite(path), operations(path), inputs_and_outputs(path)

    return Fuzzed(spoilt(seeds.tflite(folder)), _file(folder / "net.tflite", read))


def _safetensors(folder: Path) -> Fuzzed:
    from edgecnn.models.weights import read_file

    return Fuzzed(spoilt(seeds.weights(folder)[0]), _file(folder / "w.safetensors", read_file))


def _pickled(folder: Path) -> Fuzzed:
    from edgecnn.models.weights import read_file

    return Fuzzed(spoilt(seeds.weights(folder)[1]), _file(folder / "w.pth", read_file))


def _folders(folder: Path) -> Fuzzed:
    from edgecnn.data import load_folder

    def read(drawn: tuple[Any, bool, bool]) -> int:
        leaves, skip, looks = drawn
        root = folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        write_layout(root, leaves, seeds.image)
        return in_one_line(lambda: load_folder(root, skip_unreadable=skip, looks=looks, min_per_class=0))

    return Fuzzed(st.tuples(layouts(), st.booleans(), st.booleans()), read)


def _records(folder: Path) -> Fuzzed:
    from edgecnn.bench.records import read_runs

    given = [seeds.run(folder)]
    inputs = st.one_of(documents(given, to_json), spoilt([given[0] + b"\n" + given[0] + b"\n"]))
    return Fuzzed(inputs, _file(folder / "runs.jsonl", read_runs))


def _commands(folder: Path) -> Fuzzed:
    """`edgecnn export` of a stranger's network: one of its five inputs is spoilt."""
    from tests.fuzz.protobuf import spoilt_graphs

    folder.mkdir(exist_ok=True)
    graphs = seeds.networks(folder)
    pre = to_toml({**seeds.parsed(seeds.preprocess()), "height": 8, "width": 8})
    target = {
        **seeds.parsed(seeds.target()),
        "variants": [{"format": "onnx", "precision": "fp32", "runtime": "onnxruntime"}],
    }
    whole: dict[str, bytes] = {
        "net.onnx": graphs[0],
        "pre.toml": pre,
        "labels.txt": b"a\nb1\nb2\n",
        "target.toml": to_toml(target),
    }
    classes = [((name.encode(), b"%d.png" % number), "image") for name in ("a", "b1", "b2") for number in range(6)]
    write_layout(folder / "data", classes, seeds.image)
    spoilt_ones = st.one_of(
        st.tuples(st.just("net.onnx"), spoilt_graphs(graphs)),
        st.tuples(st.just("net.onnx"), spoilt(graphs)),
        *(st.tuples(st.just(name), spoilt([content])) for name, content in whole.items()),
        st.tuples(st.just("data/a/0.png"), spoilt(seeds.images())),
    )

    def read(drawn: tuple[str, bytes]) -> int:
        for name, content in {**whole, "data/a/0.png": seeds.image(99), drawn[0]: drawn[1]}.items():
            (folder / name).write_bytes(content)
        net, out = folder / "net.onnx", folder / "out"
        options = ("--data", folder / "data", "--preprocess", folder / "pre.toml", "--labels", folder / "labels.txt")
        return command("export", net, *options, "--target", folder / "target.toml", "--out", out, out=out)

    return Fuzzed(spoilt_ones, read)


def _engines(folder: Path) -> Fuzzed:
    """Somebody's file as `verify --foreign` opens and runs it."""
    import numpy as np

    from edgecnn.blame.apart import Apart
    from edgecnn.blame.engines import Refused, for_file
    from tests.fuzz.protobuf import spoilt_graphs

    graphs, files = seeds.networks(folder), seeds.tflite(folder)
    inputs = st.one_of(
        st.tuples(st.just("net.tflite"), spoilt(files)),
        st.tuples(st.just("net.onnx"), st.one_of(spoilt(graphs), spoilt_graphs(graphs))),
    )

    apart = Apart(1)

    def read(drawn: tuple[str, bytes]) -> int:
        path = folder / drawn[0]
        path.write_bytes(drawn[1])

        def answer() -> None:
            opened = apart.open(for_file(path)[0], path, seeds.SIDE**2)
            opened.metadata(), opened.precision()
            with contextlib.suppress(Refused):
                opened.run(np.zeros([size or 1 for size in opened.shape], np.float32))

        return in_one_line(answer)

    return Fuzzed(inputs, read)


TARGETS: dict[str, Callable[[Path], Fuzzed]] = {
    "images": _images,
    "labels": _labels,
    "preprocess": _preprocess,
    "target": _target,
    "bundle": _bundle,
    "records": _records,
    "onnx": _onnx,
    "tflite": _tflite,
    "safetensors": _safetensors,
    "pickled": _pickled,
    "folders": _folders,
    "engines": _engines,
    "commands": _commands,
}
