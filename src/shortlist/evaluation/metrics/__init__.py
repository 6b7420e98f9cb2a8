"""Metrics, their intervals and tests, as functions of arrays."""
