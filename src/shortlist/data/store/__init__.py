"""A dataset on disk and the columns, vocabularies and histories in it."""
