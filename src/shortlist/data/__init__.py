"""LOG -> DATASET."""

from shortlist.data.dataset import Dataset
from shortlist.data.prepare import prepare
from shortlist.data.schema import Feature, Schema
from shortlist.data.split import Split

__all__ = ["Dataset", "Feature", "Schema", "Split", "prepare"]
