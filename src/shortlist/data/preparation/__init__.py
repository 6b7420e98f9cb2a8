"""Blocks of events to a dataset: ids to rows, sorting, fitting, writing."""
