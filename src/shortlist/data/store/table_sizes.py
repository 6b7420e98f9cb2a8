"""How many rows each embedding table of a dataset has.

Knows schema, vocabularies and statistics; knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping

from shortlist.data.schema import Schema
from shortlist.data.store.numbers import NumberStatistics
from shortlist.data.store.vocabulary import Vocabulary
from shortlist.errors import InputError


def table_rows(
    schema: Schema,
    vocabularies: Mapping[str, Vocabulary],
    statistics: Mapping[str, NumberStatistics],
) -> dict[str, int]:
    """Rows of every table by name, including those for unknown and missing values.

    Args:
        schema: the features, also those of the context.
        vocabularies: by name.
        statistics: by feature, of the bucketized ones with fitted boundaries.

    Raises:
        InputError: `boundaries-missing` for a bucketized feature without boundaries.
    """
    rows = {name: len(vocabulary) for name, vocabulary in vocabularies.items()}
    for feature in schema.features:
        if feature.hash_buckets is not None:
            rows[feature.table] = 1 + feature.hash_buckets
        elif feature.kind == "bucketized":
            fitted = statistics.get(feature.name)
            boundaries = None if fitted is None else fitted.boundaries
            if boundaries is None:
                raise InputError(
                    "boundaries-missing",
                    "A bucketized feature must have boundaries. There are none of"
                    f" {feature.name!r}. Fit them with fit_numbers, or prepare again.",
                )
            rows[feature.table] = 2 + len(boundaries)
    return rows
