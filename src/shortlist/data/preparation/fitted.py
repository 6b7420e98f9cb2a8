"""What is fitted on a log: vocabularies, attribute tables and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from shortlist.data.findings import Finding
from shortlist.data.preparation.attributes import (
    AttributeFiles,
    Attributes,
    feature_vocabularies,
    merge_counts,
)
from shortlist.data.preparation.context import (
    ContextEncoder,
    context_counts,
    fit_context,
)
from shortlist.data.preparation.event_rows import EventRows
from shortlist.data.preparation.id_rows import EventCounts, IdRows, item_rows, user_rows
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.schema import ITEM, USER, Schema
from shortlist.data.store.numbers import NumberStatistics
from shortlist.data.store.table_sizes import table_rows
from shortlist.data.store.vocabulary import Vocabulary, vocabulary_file, write_frame


class ContentFiles(NamedTuple):
    """Files in a dataset, by what they hold.

    Args:
        tables: of the `users` and of the `items`.
        vocabularies: by vocabulary.
        pending: of the pending ids of `user` and `item`, where there are any.
    """

    tables: dict[str, str]
    vocabularies: dict[str, str]
    pending: dict[str, str]


@dataclass(frozen=True)
class Fitted:
    """Everything that is fitted on a log.

    Args:
        schema: what is stored.
        ids: rows of the `user` and of the `item` codes.
        vocabularies: of the ids and of the looked-up features.
        frames: the users and the items, record i for row i.
        numbers: statistics of the numeric features, by name.
        pending: the pending users and items, in order of their rows: `id` and the
            attributes that the log holds.
        findings: what reading the attribute files noticed.
    """

    schema: Schema
    ids: dict[str, IdRows]
    vocabularies: dict[str, Vocabulary]
    frames: dict[str, pl.DataFrame]
    pending: dict[str, pl.DataFrame]
    numbers: dict[str, NumberStatistics]
    findings: tuple[Finding, ...] = ()

    @classmethod
    def fit(
        cls,
        log: SortedLog,
        counts: EventCounts,
        schema: Schema,
        sources: AttributeFiles,
    ) -> Fitted:
        """Fits vocabularies and statistics, without the test part.

        Raises:
            LogError: an attribute file cannot be used.
        """
        with ThreadPoolExecutor(2) as pool:
            rows = [pool.submit(f, log, schema, counts) for f in (user_rows, item_rows)]
        ids = {USER: rows[0].result(), ITEM: rows[1].result()}
        users, items = (ids[owner].vocabulary for owner in (USER, ITEM))
        trained = {
            USER: ids[USER].trained(counts.users),
            ITEM: ids[ITEM].trained(counts.items),
        }
        attributes = Attributes.read(
            schema, sources, users.ids, items.ids, log.attributes
        )
        found = attributes.token_counts(trained)
        for table, more in context_counts(log, schema).items():
            both = [found[table], more] if table in found else [more]
            found[table] = merge_counts(both)
        vocabularies = {USER: users, ITEM: items, **feature_vocabularies(schema, found)}
        frames, numbers = attributes.encode(vocabularies, trained)
        pending = pending_frames(log, schema, ids, vocabularies, numbers)
        return cls(
            schema=schema,
            ids=ids,
            vocabularies=vocabularies,
            frames=frames,
            pending=pending,
            numbers=numbers | fit_context(log, schema),
            findings=attributes.findings,
        )

    def event_rows(self, log: SortedLog) -> EventRows:
        """The events of `log` as they are stored."""
        sizes = table_rows(self.schema, self.vocabularies, self.numbers)
        return EventRows(
            log,
            self.schema,
            users=self.ids[USER],
            items=self.ids[ITEM],
            context=ContextEncoder(
                self.schema, log.tables, self.vocabularies, self.numbers, sizes
            ),
        )

    def write(self, folder: Path, generation: int) -> ContentFiles:
        """Writes the users, the items, the vocabularies and the pending ids.

        Args:
            folder: folder of the dataset.
            generation: part of every name, so that nothing is overwritten.

        """
        tables, pending, vocabularies = {}, {}, {}
        for owner, frame in self.frames.items():
            tables[f"{owner}s"] = f"{owner}s-{generation}.arrow"
            write_frame(frame, folder / tables[f"{owner}s"])
        for owner, rows in self.ids.items():
            if len(rows.pending):
                pending[owner] = f"pending-{owner}s-{generation}.arrow"
                write_frame(self.pending[owner], folder / pending[owner])
        place = folder / f"vocabularies-{generation}"
        place.mkdir()
        for name, vocabulary in self.vocabularies.items():
            file = place / vocabulary_file(name)
            vocabulary.save(file)
            vocabularies[name] = file.relative_to(folder).as_posix()
        return ContentFiles(tables, vocabularies, pending)


def pending_frames(
    log: SortedLog,
    schema: Schema,
    ids: Mapping[str, IdRows],
    vocabularies: Mapping[str, Vocabulary],
    numbers: Mapping[str, NumberStatistics],
) -> dict[str, pl.DataFrame]:
    """The pending users and items with the attributes that the log holds of them."""
    users, items = (ids[owner].pending for owner in (USER, ITEM))
    wanted = schema.log_attributes
    attributes = Attributes.read(wanted, {}, users, items, log.attributes)
    frames, _ = attributes.encode(vocabularies, {}, numbers)
    return frames
