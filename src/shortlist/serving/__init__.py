"""BUNDLE -> ANSWERS. Needs NumPy and ONNX Runtime; knows no Keras."""

from shortlist.serving.recommender import Recommender

__all__ = ["Recommender"]
