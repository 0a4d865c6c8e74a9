"""Features on disk: .npz or Parquet, with each image's path, label, split and hash."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.documents import write_atomically
from edgecnn.embeddings.features import Embedded, Features
from edgecnn.errors import UserError, first_line, must_be_file, not_one_of
from edgecnn.installed import need

ENDINGS = (".npz", ".parquet")
_COLUMNS = ("path", "label", "split", "sha256")


def refuse_other_content(out: Path) -> None:
    """UserError for an ending that is not written here, or where `out` holds something else than features."""
    if out.suffix.lower() not in ENDINGS:
        raise not_one_of(f"--out {out}: ending", out.suffix, ENDINGS)
    if out.is_file() and out.stat().st_size:
        try:
            load_features(out)
        except UserError as error:
            raise UserError(f"{error}: choose another --out, or remove it") from None


def save_features(path: Path, embedded: Embedded) -> None:
    """Written whole or not at all. MissingExtra without pyarrow for .parquet."""
    images = embedded.images
    columns: dict[str, list[str]] = {
        "path": [item.name for item in images.items],
        "label": [images.classes[item.label] if images.classes else "" for item in images.items],
        "split": list(images.splits),
        "sha256": [item.sha256 for item in images.items],
    }
    stream = io.BytesIO()
    if path.suffix.lower() == ".npz":
        texts: dict[str, Any] = {name: np.array(values, dtype=str) for name, values in columns.items()}
        np.savez_compressed(stream, features=embedded.features, meta=np.array(json.dumps(embedded.meta)), **texts)
    else:
        _write_parquet(stream, columns, embedded)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


def load_features(path: Path) -> tuple[Features, dict[str, NDArray[np.str_]], dict[str, Any]]:
    """Features (n, d), the columns path, label, split, sha256, and what made them. UserError for another file."""
    must_be_file(path, "features, written by `edgecnn embed`")
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: holds no features ({first_line(error)}; expected a file that `edgecnn embed` wrote)"
        ) from None


def _read(path: Path) -> tuple[Features, dict[str, NDArray[np.str_]], dict[str, Any]]:
    if path.suffix.lower() == ".npz":
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            return found["features"], {name: found[name] for name in _COLUMNS}, json.loads(str(found["meta"]))
    need_pyarrow()
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    features = np.stack(table.column("features").to_numpy())
    meta = json.loads((table.schema.metadata or {}).get(b"edgecnn", b"{}"))
    return features.astype(np.float32), {n: np.array(table.column(n).to_pylist(), dtype=str) for n in _COLUMNS}, meta


def _write_parquet(stream: io.BytesIO, columns: dict[str, list[str]], embedded: Embedded) -> None:
    need_pyarrow()
    import pyarrow
    import pyarrow.parquet as parquet

    width = embedded.features.shape[1]
    rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(embedded.features.ravel()), width)
    table = pyarrow.table({**columns, "features": rows})
    table = table.replace_schema_metadata({"edgecnn": json.dumps(embedded.meta)})
    parquet.write_table(table, stream)


def need_pyarrow() -> None:
    """Raises MissingExtra where pyarrow is not installed."""
    need("train", "pyarrow")
