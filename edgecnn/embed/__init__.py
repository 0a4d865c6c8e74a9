"""Embeddings: what a backbone hands to its head, for every image of a folder, and what can be read off them."""

from edgecnn.embed.backbone import Backbone, backbone_of_checkpoint, open_backbone
from edgecnn.embed.baselines import Score
from edgecnn.embed.features import compute_features
from edgecnn.embed.files import Embeddings, read_embeddings, write_embeddings
from edgecnn.embed.findings import Findings, study
from edgecnn.embed.page import write_page
from edgecnn.embed.pictures import Collection, Picture, collect
from edgecnn.embed.suspects import Mislabelled, Pair

__all__ = [
    "Backbone",
    "Collection",
    "Embeddings",
    "Findings",
    "Mislabelled",
    "Pair",
    "Picture",
    "Score",
    "backbone_of_checkpoint",
    "collect",
    "compute_features",
    "open_backbone",
    "read_embeddings",
    "study",
    "write_embeddings",
    "write_page",
]
