"""A schema and reading options proposed for a log."""
