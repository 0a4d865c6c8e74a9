"""Embeddings on disk: NumPy's .npz, or Parquet."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import MissingExtra, UserError, first_line, must_be_file, not_one_of

ENDINGS = (".npz", ".parquet")
_META = b"edgecnn"


@dataclass(frozen=True)
class Embeddings:
    """One row an image."""

    features: NDArray[np.float32]
    """float32 (n, d)."""
    paths: tuple[str, ...]
    """Relative to the folder."""
    labels: tuple[str, ...]
    """Class names; empty words where there are none."""
    sha256: tuple[str, ...]
    """Of the encoded files."""
    split: tuple[str, ...]
    """train, val, test; empty words where there is none."""
    meta: Mapping[str, Any]
    """How they were made: model, weights, preprocess, fingerprint, classes."""


def check_ending(path: Path) -> None:
    """Raises UserError for another ending than ENDINGS, MissingExtra for .parquet without pyarrow."""
    if path.suffix.lower() not in ENDINGS:
        raise not_one_of("--out", path.name, [f"*{ending}" for ending in ENDINGS])
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write .npz or .parquet by the ending; complete or not there.

    .npz: features float32 (n, d); paths, labels, sha256, split as text (n,); meta as JSON text: nothing is pickled.
    .parquet: columns path, label, sha256, split and features (lists of fixed length), meta in the file's metadata.
    The same embeddings give the same .npz bytes.
    """
    check_ending(path)
    write = _write_npz if path.suffix.lower() == ".npz" else _write_parquet
    _in_place(path, lambda temporary: write(temporary, embeddings))


def read_embeddings(path: Path) -> Embeddings:
    """What `write_embeddings` wrote. Raises UserError where it is something else."""
    check_ending(path)
    must_be_file(path, "embeddings, made by `edgecnn embed`")
    try:
        return _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not embeddings of `edgecnn embed` ({first_line(error)}): write them again") from None


def _in_place(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside `path`, flush, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): name another --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_npz(path: Path, embeddings: Embeddings) -> None:
    with path.open("wb") as stream:
        np.savez(
            stream,
            features=embeddings.features,
            paths=np.array(embeddings.paths, dtype=np.str_),
            labels=np.array(embeddings.labels, dtype=np.str_),
            sha256=np.array(embeddings.sha256, dtype=np.str_),
            split=np.array(embeddings.split, dtype=np.str_),
            meta=np.array(json.dumps(embeddings.meta, ensure_ascii=False, sort_keys=True)),
        )


def _read_npz(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as found:
        texts = {name: tuple(found[name].tolist()) for name in ("paths", "labels", "sha256", "split")}
        return Embeddings(features=found["features"], meta=json.loads(str(found["meta"])), **texts)


def _write_parquet(path: Path, embeddings: Embeddings) -> None:
    pa, parquet = _pyarrow()
    values = pa.array(embeddings.features.reshape(-1), type=pa.float32())
    columns = {
        "path": pa.array(embeddings.paths, pa.string()),
        "label": pa.array(embeddings.labels, pa.string()),
        "sha256": pa.array(embeddings.sha256, pa.string()),
        "split": pa.array(embeddings.split, pa.string()),
        "features": pa.FixedSizeListArray.from_arrays(values, embeddings.features.shape[1]),
    }
    meta = json.dumps(embeddings.meta, ensure_ascii=False, sort_keys=True).encode()
    parquet.write_table(pa.table(columns).replace_schema_metadata({_META: meta}), path)


def _read_parquet(path: Path) -> Embeddings:
    _, parquet = _pyarrow()
    table = parquet.ParquetFile(path).read()
    column = table["features"].combine_chunks()
    features = column.flatten().to_numpy().reshape(len(table), column.type.list_size).astype(np.float32)
    path_, label, sha256, split = (tuple(table[name].to_pylist()) for name in ("path", "label", "sha256", "split"))
    return Embeddings(features, path_, label, sha256, split, json.loads((table.schema.metadata or {})[_META]))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "train") from None
    return pyarrow, pyarrow.parquet
