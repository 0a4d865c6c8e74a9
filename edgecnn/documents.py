"""Values on disk: strict JSON with a hash over its own content, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgecnn.errors import UserError

Sha256 = str
"""64 lower-case hexadecimal digits."""

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""What can be written as JSON; tuples are written as lists."""


class Frozen(BaseModel):
    """A value: strict types, unknown keys refused, immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Model = TypeVar("Model", bound=Frozen)


def sha256_of(data: bytes) -> Sha256:
    """Hash of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> Sha256:
    """Hash of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse(model: type[Model], data: str | bytes, where: str) -> Model:
    """JSON text to a frozen model; every problem in one UserError."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise UserError(f"{where}: {problems(error)}") from None


def checked(model: type[Model], values: Mapping[str, Any], where: str, context: object = None) -> Model:
    """Values to a frozen model; every problem in one UserError. `context`: for the model's own validators."""
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        raise UserError(f"{where}: {problems(error)}") from None


_OUR_WORDS = {
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    "tuple_type": "is not a list: write [a, b], or [[name]] above each of several tables",
}
"""For pydantic's, by its types of findings."""


def problems(error: ValidationError) -> str:
    """All of pydantic's findings on one line, but those that only follow from a finding inside the same value."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [item["loc"] for item in found]
    return "; ".join(
        _problem([str(part) for part in item["loc"]], _OUR_WORDS.get(item["type"], item["msg"]))
        for item in found
        if not any(len(place) > len(item["loc"]) and place[: len(item["loc"])] == item["loc"] for place in places)
    )


def _problem(where: Sequence[str], message: str) -> str:
    """A check of ours says where by itself."""
    ours = message.removeprefix("Value error, ")
    if not where and ours != message:
        return ours
    return f"{'.'.join(where) or 'file'}: {ours[0].lower()}{ours[1:]}"


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: never half a file. An OSError names `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # of a full disk it has none
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that replaces `path` on success and vanishes on failure."""
    path = path.resolve()  # `.` and `..` have no name to stand beside
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_document(path: Path, value: Frozen) -> None:
    """Write JSON with a hash over its own content, so that a changed digit in it is noticed too."""
    content = value.model_dump(mode="json")
    document = {"content_sha256": _content_hash(content), **content}
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_document(path: Path, model: type[Model], version: int, advice: str) -> Model:
    """Read what `write_document` wrote. UserError, ending in `advice`, where it is damaged or of another version."""
    try:
        document: dict[str, Json] = json.loads(path.read_bytes())
        claimed = document.pop("content_sha256")
        found = document["version"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path}: not a {path.stem} description (damaged?): {advice}") from None
    if found != version:
        raise UserError(
            f"{path}: {path.stem} version {found}, this edgecnn reads version {version}: install a matching edgecnn"
        )
    if claimed != _content_hash(document):
        raise UserError(f"{path}: its content does not match its own hash: {advice}")
    return parse(model, json.dumps(document), str(path))


def _content_hash(content: Mapping[str, Json]) -> Sha256:
    return sha256_of(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
