"""Hyperparameter search: the space, the study and its trials."""
