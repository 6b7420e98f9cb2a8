"""Shortlist turns an interaction log into a served recommender."""

__version__ = "0.1.0"

__all__ = ["__version__"]
