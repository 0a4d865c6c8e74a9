"""Splits and folds of whole parts: nothing straddles, nothing is lost, every class is where it can be."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.data import Dataset, Item, folds, split_by_part
from edgecnn.data.assign import FRACTIONS

Parts = list[list[int]]
"""The labels of each part's images."""


def items_of(parts: Parts) -> list[Item]:
    return [
        Item(Path("x"), f"{part}-{number}.png", label, f"{part:03d}{number:03d}" + 58 * "0", f"part{part}")
        for part, labels in enumerate(parts)
        for number, label in enumerate(labels)
    ]


pure = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 9)).map(lambda drawn: [drawn[0]] * drawn[1]), min_size=1, max_size=60
)
mixed = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=7)


@given(parts=st.one_of(pure, mixed), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_parts_stay_whole_and_nothing_is_lost(parts: Parts, seed: int) -> None:
    items = items_of(parts)
    splits = split_by_part(items, FRACTIONS, seed)
    assert sorted(item.name for found in splits.values() for item in found) == sorted(item.name for item in items)
    assert max(Counter(part for found in splits.values() for part in {item.part for item in found}).values()) == 1


@given(parts=pure, seed=st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_a_class_of_three_parts_is_in_every_split(parts: Parts, seed: int) -> None:
    splits = split_by_part(items_of(parts), FRACTIONS, seed)
    for label, count in Counter(labels[0] for labels in parts).items():
        if count >= len(FRACTIONS):
            assert all(any(item.label == label for item in found) for found in splits.values())


@given(parts=mixed, seed=st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_mixed_parts_too_where_it_is_possible(parts: Parts, seed: int) -> None:
    """Against every way there is to place at most seven parts."""
    classes = {label for labels in parts for label in labels}
    wanted = len(classes) * len(FRACTIONS)
    possible = any(
        len({(split, label) for split, labels in zip(way, parts, strict=True) for label in labels}) == wanted
        for way in product(range(len(FRACTIONS)), repeat=len(parts))
    )
    splits = split_by_part(items_of(parts), FRACTIONS, seed)
    if possible:
        assert sum(len({item.label for item in found}) for found in splits.values()) == wanted


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 6)).map(lambda d: [d[0]] * d[1]), min_size=60, max_size=90
    )
)
@settings(deadline=None, max_examples=40)
def test_the_classes_shares_are_kept(parts: Parts) -> None:
    items = items_of(parts)
    splits = split_by_part(items, FRACTIONS, 0)
    for label, count in Counter(item.label for item in items).items():
        for name, fraction in FRACTIONS.items():
            have = sum(item.label == label for item in splits[name])
            assert abs(have - fraction * count) <= 6  # a part's worth


def test_names_of_parts_and_files_change_nothing() -> None:
    parts = [[number % 3] * (1 + number % 4) for number in range(40)]
    items = items_of(parts)
    renamed = [Item(item.path, f"z{item.name[::-1]}", item.label, item.sha256, item.part[::-1]) for item in items]
    first, other = split_by_part(items, FRACTIONS, 0), split_by_part(renamed[::-1], FRACTIONS, 0)
    for name in FRACTIONS:
        assert {item.sha256 for item in first[name]} == {item.sha256 for item in other[name]}
    reseeded = split_by_part(items, FRACTIONS, 1)
    assert {item.sha256 for item in reseeded["test"]} != {item.sha256 for item in first["test"]}


@given(parts=pure, count=st.integers(2, 5))
@settings(deadline=None, max_examples=60)
def test_every_image_is_a_test_image_once(parts: Parts, count: int) -> None:
    items = items_of(parts)
    data = Dataset(Path("x"), ("a", "b", "c", "d"), None, tuple(items), (), ())
    tested = []
    for fold in folds(data, count, 0):
        names = [{item.part for item in fold.split(name)} for name in ("train", "val", "test")]
        assert len(set.union(*names)) == sum(map(len, names))
        assert len(fold.train) + len(fold.val) + len(fold.test) == len(items)
        tested += [item.name for item in fold.test]
    assert sorted(tested) == sorted(item.name for item in items)
