"""Names that files carry, as each program writes them; what is no list of names is none."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from edgecnn.modelfiles.class_names import class_names, only_count

NAMES = ("spot", "crack", "good")
WRITTEN: dict[str, dict[str, Any]] = {
    "names": {"names": "{0: 'spot', 1: 'crack', 2: 'good'}", "imgsz": "[96, 96]"},
    "label_names": {"label_names": list(NAMES)},
    "pretrained_cfg.label_names": {"pretrained_cfg": {"label_names": list(NAMES)}},
    "id2label": {"id2label": json.dumps({"0": "spot", "1": "crack", "2": "good"})},
    "class_to_idx": {"class_to_idx": {"crack": 1, "good": 2, "spot": 0}},
    "classes": {"classes": json.dumps(NAMES)},
    "hyper_parameters.class_names": {"hyper_parameters": {"lr": 0.1, "class_names": NAMES}},
    "args.class_map": {"args": argparse.Namespace(lr=0.1, class_map=list(NAMES))},
}


@pytest.mark.parametrize("key", WRITTEN)
def test_names_are_read_in_the_order_of_the_outputs(key: str) -> None:
    found = class_names(WRITTEN[key], 3)
    assert found is not None
    assert (found.classes, found.key) == (NAMES, key)
    assert class_names(WRITTEN[key], 4) is None


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"names": "__import__('os').system('true')"},
        {"names": "{0: 'a', 2: 'b', 3: 'c'}"},
        {"names": "['a', 'a', 'b']"},
        {"names": 3},
        {"names": "crack good spot"},
        {"classes": [1, 2, 3]},
        {"labels": "[" * 100_000},
        {"classes": ["a", "", "b"]},
    ],
)
def test_what_is_no_list_of_names_is_none(held: dict[str, Any]) -> None:
    assert class_names(held, 3) is None


def test_names_that_only_count_say_nothing() -> None:
    for names in (("0", "1", "2"), ("1", "2"), ("class_0", "class_1"), ("Class 1", "Class 2")):
        assert only_count(names)
    assert not only_count(NAMES)
    assert not only_count(("1", "10", "2"))
