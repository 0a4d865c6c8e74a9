"""ONNX graphs with a few of their fields changed, whatever they are: what a byte flipped anywhere seldom reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

_KINDS = ("Conv", "Gemm", "Add", "Reshape", "Softmax", "ArgMax", "Sigmoid", "Transpose", "Resize", "If", "Loop", "")
_INTEGERS = (0, 1, -1, 2, 7, 16, 2**31 - 1, -(2**31))
_LONG = (2**63 - 1, -(2**63), 10**12)
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e-45)


@st.composite
def spoilt_graphs(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` with at most four fields changed, emptied, taken out or doubled."""
    model = onnx.ModelProto.FromString(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        _change(draw, model)
    content: bytes = model.SerializeToString()
    return content


def _change(draw: st.DrawFn, message: Any) -> None:
    """Go down to some field, and change it."""
    while fields := message.ListFields():
        field, value = draw(st.sampled_from(fields))
        if not _is_repeated(field):
            if field.type != FieldDescriptor.TYPE_MESSAGE:
                setattr(message, field.name, _other(draw, field))
                return
            message = value
            continue
        place = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(("into", "into", "into", "gone", "twice")))
        if what == "gone":
            del value[place]
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            value[place] = _other(draw, field)
        elif what == "twice":
            value.add().CopyFrom(value[place])
        else:
            message = value[place]
            continue
        return


def _is_repeated(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", None) or getattr(field, "label", 0) == FieldDescriptor.LABEL_REPEATED)


def _other(draw: st.DrawFn, field: Any) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return draw(st.binary(max_size=8))
        return draw(st.sampled_from((*_KINDS, "images", "scores", "a", "x" * 300)))
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return draw(st.sampled_from(_FLOATS))
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return draw(st.sampled_from([one.number for one in field.enum_type.values]))
    long = _LONG if kind == FieldDescriptor.CPPTYPE_INT64 else ()
    return draw(st.sampled_from((*_INTEGERS, *long)))
