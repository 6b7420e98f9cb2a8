"""RUN -> ONE DIRECTORY. Only `export` knows Keras."""

from shortlist.backend import choose_backend
from shortlist.bundle.bundle import Bundle, read_bundle, write_bundle
from shortlist.bundle.contents import (
    BundleContents,
    RankerContents,
    RetrievalContents,
    TowerContents,
)
from shortlist.bundle.manifest import Manifest

__all__ = [
    "Bundle",
    "BundleContents",
    "Manifest",
    "RankerContents",
    "RetrievalContents",
    "TowerContents",
    "read_bundle",
    "write_bundle",
]

choose_backend()  # before `export` is imported: it loads Keras
