"""Labelled images: folders, leak-free splits, calibration sets, and the built-in surface-defect generator."""

from edgecnn.data.assign import fold_numbers, folds, split_by_part
from edgecnn.data.clean import with_test
from edgecnn.data.folders import load_folder
from edgecnn.data.items import SPLITS, Dataset, Item, Problem, calibration_items, part_of, split_hash
from edgecnn.data.layout import gives_test
from edgecnn.data.located import Located, Sought, locate
from edgecnn.data.splits import find_images, load_split, save_split, split_hashes

__all__ = [
    "SPLITS",
    "Dataset",
    "Item",
    "Located",
    "Problem",
    "Sought",
    "calibration_items",
    "find_images",
    "fold_numbers",
    "folds",
    "gives_test",
    "load_folder",
    "load_split",
    "locate",
    "part_of",
    "save_split",
    "split_by_part",
    "split_hash",
    "split_hashes",
    "with_test",
]
