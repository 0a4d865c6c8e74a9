"""Labelled images: folders, leak-free splits, calibration sets, and the built-in surface-defect generator."""

from edgecnn.data.folders import (
    SPLITS,
    Dataset,
    Item,
    Problem,
    calibration_items,
    load_folder,
    split_hash,
)
from edgecnn.data.splits import find_images, load_split, save_split, split_hashes

__all__ = [
    "SPLITS",
    "Dataset",
    "Item",
    "Problem",
    "calibration_items",
    "find_images",
    "load_folder",
    "load_split",
    "save_split",
    "split_hash",
    "split_hashes",
]
