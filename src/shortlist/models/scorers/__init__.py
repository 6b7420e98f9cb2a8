"""A USER'S ITEMS -> SCORES OF ALL ITEMS: the retrieval models.

Nothing here imports Keras or SciPy: a server runs the same classes that were trained.
"""

from shortlist.models.scorers.als import ImplicitAls
from shortlist.models.scorers.blend import Blend
from shortlist.models.scorers.burst_als import BurstAls
from shortlist.models.scorers.ease import Ease
from shortlist.models.scorers.factorization import Factorization
from shortlist.models.scorers.item_knn import ItemKnn
from shortlist.models.scorers.popularity import Popularity
from shortlist.models.scorers.queries import KnownItems, Queries
from shortlist.models.scorers.scorer import LAST, Scorer
from shortlist.models.scorers.search import best_items
from shortlist.models.scorers.storage import (
    KINDS,
    SCORERS,
    load_scorer,
    make_scorer,
    restore,
    save_scorer,
)
from shortlist.models.scorers.vectors import TwoTowerScorer, VectorScorer

__all__ = [
    "Blend",
    "BurstAls",
    "Ease",
    "Factorization",
    "ImplicitAls",
    "ItemKnn",
    "KINDS",
    "KnownItems",
    "LAST",
    "Popularity",
    "Queries",
    "SCORERS",
    "Scorer",
    "TwoTowerScorer",
    "VectorScorer",
    "best_items",
    "load_scorer",
    "make_scorer",
    "restore",
    "save_scorer",
]
