"""All the logic of serving, as one plain Python object.

Knows a bundle and an event store, and no transport. A call takes well below a
millisecond for a catalogue of ten thousand items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from shortlist.bundle.bundle import Bundle, read_bundle
from shortlist.bundle.contents import HISTORY_TIMES, HISTORY_VALUES
from shortlist.data.schema import HISTORY, USER
from shortlist.errors import InputError
from shortlist.serving.answers import (
    User,
    as_queries,
    best_source,
    excluded_of,
    is_asked,
    or_popular,
)
from shortlist.serving.catalogue import (
    Catalogue,
    Scored,
    check_id,
    shortened,
    suggest_id,
)
from shortlist.serving.event_store.checks import check_event
from shortlist.serving.event_store.events import (
    Event,
    EventStore,
    MemoryEventStore,
    SqliteEventStore,
    now_ms,
)
from shortlist.serving.event_store.replay import is_interaction, posted_columns
from shortlist.serving.histories import (
    NO_HISTORY,
    History,
    UserHistories,
    UserKey,
)
from shortlist.serving.http.limits import StateLimits
from shortlist.serving.model import Model
from shortlist.serving.results import (
    ExternalId,
    Ranking,
    Recommendations,
    SimilarItems,
)

MAX_K = 1000


class Recommender:
    """Answers from a bundle. Safe to use from several threads.

    The model answers for users of the training. For other users with a history, given
    or posted, it answers for the out-of-vocabulary user with that history. Anyone else
    gets popular items.

    Args:
        bundle: a bundle that was read.
        events: where posted events are stored; only in memory by default.
        limits: how much posted state may be held in memory.

    Raises:
        ArtifactError: a graph of the bundle cannot be run (`bundle-graph`).
        ResourceError: ONNX Runtime is missing (`package-missing`).
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        events: EventStore | None = None,
        limits: StateLimits | None = None,
    ) -> None:
        contents = bundle.contents
        self.manifest = bundle.manifest
        self.catalogue = Catalogue(contents)
        self._schema = contents.schema
        self._users = contents.vocabularies[USER]
        self._histories = UserHistories(
            contents.users[HISTORY],
            *(
                contents.users[column] if column in contents.users.columns else None
                for column in (HISTORY_TIMES, HISTORY_VALUES)
            ),
            limits=limits,
        )
        self._model = (
            None
            if contents.retrieval is None
            else Model(contents.retrieval, contents.ranker, contents)
        )
        self._exclude_seen = not contents.repeats
        self._events = MemoryEventStore() if events is None else events
        self._histories.load(
            posted_columns(
                self._events.blocks(),
                self._users,
                self.catalogue.vocabulary,
                self._schema,
            )
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        events: EventStore | None = None,
        verify: bool = True,
        limits: StateLimits | None = None,
    ) -> Recommender:
        """Reads a bundle directory and serves it.

        Args:
            path: directory of the bundle.
            events: where posted events are stored; only in memory by default.
            verify: check the SHA-256 of every file first.
            limits: how much posted state may be held in memory.

        Raises:
            ArtifactError: the bundle is missing, damaged or of a later version.
        """
        bundle = read_bundle(path, verify=verify)
        return cls(bundle, events=events, limits=limits)

    @property
    def model_version(self) -> str:
        """Version of the bundle."""
        return self.manifest.version

    def recommend(
        self,
        user_id: ExternalId | None = None,
        *,
        k: int = 10,
        history: Sequence[ExternalId] | None = None,
        exclude_ids: Sequence[ExternalId] = (),
        exclude_seen: bool | None = None,
    ) -> Recommendations:
        """Lists what one user should see next, best first.

        Args:
            user_id: external id, or `None` for a visitor without one.
            k: most items to return, 1 to 1000.
            history: item ids, oldest first, used instead of the stored history; they
                count as seen. Unknown ids are ignored.
            exclude_ids: items to leave out. Unknown ids are ignored.
            exclude_seen: leave out seen items. By default they are left out, unless
                the bundle was exported with `serving.repeats`.

        Raises:
            InputError: `invalid-k` or `invalid-id`.
        """
        k = _check_k(k)
        user = self._resolve(user_id, history, exclude_ids, exclude_seen=exclude_seen)
        return self._lists([user], k)[0]

    def recommend_batch(
        self,
        user_ids: Sequence[ExternalId],
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
    ) -> list[Recommendations]:
        """The answer of `recommend` for each user, faster; for evaluation.

        Raises:
            InputError: `invalid-k` or `invalid-id`.
        """
        k = _check_k(k)
        answers = []
        for begin in range(0, len(user_ids), 1024):  # bounds the memory of the scores
            users = [
                self._resolve(user_id, None, (), exclude_seen=exclude_seen)
                for user_id in user_ids[begin : begin + 1024]
            ]
            answers += self._lists(users, k)
        return answers

    def rank(self, user_id: ExternalId, item_ids: Iterable[ExternalId]) -> Ranking:
        """Orders given items for one user, best first.

        The score is that of the ranker if there is one, else the retrieval score. For
        a user about whom nothing is known it is the number of training events.

        Args:
            user_id: external id; an unknown one gets a cold-start answer.
            item_ids: items to order; repetitions count once, unknown items are
                returned in `unknown_items` without a score.

        Raises:
            InputError: `invalid-id`.
        """
        item_ids = list(item_ids)
        found = dict(zip(item_ids, self.catalogue.rows(item_ids), strict=True))
        # "7" and 7 are one item of an integer vocabulary, hence the second pass.
        rows = np.array([*dict.fromkeys(r for r in found.values() if r)], np.int32)
        user = self._resolve(user_id, None, (), exclude_seen=False)
        scored = None
        if self._model is not None and is_asked(self._model, user):
            scored = self._model.score(as_queries([user]), rows)
        answer = or_popular(
            user.source, scored, lambda: self.catalogue.by_popularity(rows)
        )
        return Ranking(
            items=self.catalogue.scored(answer.scored.rows, answer.scored.scores),
            unknown_items=[item_id for item_id, row in found.items() if not row],
            source=answer.source,
            cold_start=not user.trained,
            model_version=self.model_version,
            degraded=answer.degraded,
        )

    def score(self, user_id: ExternalId, item_ids: Sequence[ExternalId]) -> np.ndarray:
        """Scores given items for one user, in the order given.

        Unlike `rank` it asks the model about unknown users too, as the
        out-of-vocabulary user. A bundle without a model scores by popularity.

        Returns: `(n,)` float32, NaN for an unknown item.

        Raises:
            InputError: `invalid-id`.
        """
        rows = np.array(self.catalogue.rows(item_ids), np.int32)
        known = np.unique(rows[rows > 0])
        user = self._resolve(user_id, None, (), exclude_seen=False)
        scored, _, _ = or_popular(
            user.source,
            None
            if self._model is None
            else self._model.score(as_queries([user]), known),
            lambda: self.catalogue.by_popularity(known),
        )
        by_row = dict(zip(scored.rows.tolist(), scored.scores.tolist(), strict=True))
        return np.array([by_row.get(row, np.nan) for row in rows.tolist()], np.float32)

    def suggest_user(self, user_id: ExternalId) -> str:
        """Returns " Did you mean 'x'?" for a known user one typo away, or ""."""
        return suggest_id(self._users, user_id)

    def is_known_user(self, user_id: ExternalId) -> bool:
        """Whether the model was trained with this user."""
        return self._is_trained(self._users.row(user_id))

    def similar(self, item_id: ExternalId, k: int = 10) -> SimilarItems:
        """Lists the items that are most similar to one item by the model.

        That is by the cosine of vectors or factors, or the item-item weights. A bundle
        without any of these answers with popular items.

        Raises:
            UnknownIdError: `unknown-item`.
            InputError: `invalid-k` or `invalid-id`.
        """
        k = _check_k(k)
        row = self.catalogue.require(item_id)
        answer = or_popular(
            "model",
            None if self._model is None else self._model.nearest(row, k),
            lambda: self.catalogue.popular(k, np.array([row])),
        )
        return SimilarItems(
            item_id=item_id,
            items=self.catalogue.scored(answer.scored.rows, answer.scored.scores),
            source=answer.source,
            model_version=self.model_version,
        )

    def add_event(
        self,
        user_id: ExternalId,
        item_id: ExternalId,
        timestamp_ms: int | None = None,
        label: float | None = None,
        event_id: str | None = None,
    ) -> None:
        """Stores one event; the user's next answer uses it.

        Args:
            user_id: external id, also of a new user.
            item_id: external id of a known item.
            timestamp_ms: milliseconds since the epoch; now by default.
            label: rating or click.
            event_id: events with the same id are stored once.

        Raises:
            UnknownIdError: `unknown-item`.
            InputError: `invalid-id`, `invalid-timestamp`, `future-timestamp`,
                `invalid-label` or `event-id-reused`.
            ResourceError: it could not be stored (`events-not-stored`,
                `events-file-lost`), or there is no more room (`events-full`).
        """
        event = Event(
            user_id=user_id,
            item_id=item_id,
            timestamp_ms=now_ms() if timestamp_ms is None else timestamp_ms,
            label=label,
            event_id=event_id,
        )
        self.add_events([event])

    def add_events(self, events: Sequence[Event]) -> int:
        """Stores all the events, or none if one is invalid; raises as `add_event`.

        Returns:
            The number of new events; the others were stored before, by `event_id`.
        """
        for _, error in self.check_events(events):
            raise error
        self._histories.check_room(self._key(event.user_id) for event in events)
        fresh = self._events.append(events)
        self._remember([e for e, is_new in zip(events, fresh, strict=True) if is_new])
        return sum(fresh)

    def check_events(self, events: Sequence[Event]) -> list[tuple[int, InputError]]:
        """The events that `add_events` would refuse: index and error of each."""
        arrival_ms, errors = now_ms(), []
        for index, event in enumerate(events):
            try:
                check_event(event, self.catalogue, self._schema, now_ms=arrival_ms)
            except InputError as error:
                errors.append((index, error))
        return errors

    def check_events_file(self) -> None:
        """Checks the file of the event store, if it has one."""
        if isinstance(self._events, SqliteEventStore):
            self._events.check()

    def close(self) -> None:
        """Closes the event store."""
        self._events.close()

    def _remember(self, events: Sequence[Event]) -> None:
        """Adds the events that are interactions to the histories."""
        labels = np.array([np.nan if e.label is None else e.label for e in events])
        known = []
        for event, counts in zip(
            events, is_interaction(labels, self._schema), strict=True
        ):
            if counts:
                row = self.catalogue.vocabulary.row(event.item_id)
                key = self._key(event.user_id)
                known.append((key, row, event.timestamp_ms, event.label))
        self._histories.add(known)

    def _is_trained(self, row: int) -> bool:
        return row > 0 and bool(self._users.counts[row] > 0)

    def _key(self, user_id: ExternalId) -> UserKey:
        return self._users.row(user_id) or str(user_id)

    def _resolve(
        self,
        user_id: ExternalId | None,
        history: Sequence[ExternalId] | None,
        exclude_ids: Sequence[ExternalId],
        *,
        exclude_seen: bool | None,
    ) -> User:
        known, row = NO_HISTORY, 0
        if user_id is not None:
            key = self._key(check_id("user_id", user_id))
            known, row = self._histories.of(key), key if isinstance(key, int) else 0
        taken = [known.items, known.seen]
        if history is not None:
            known = History(self._known(history))
        judged = known.items
        excluded = [np.zeros(1, np.int32)]  # row 0 is no item
        if exclude_ids:
            excluded.append(self._known(exclude_ids))
        if self._exclude_seen if exclude_seen is None else exclude_seen:
            excluded += taken if history is None else [*taken, judged]
        # A user may have a row because of attributes alone; it was not trained then.
        trained = self._is_trained(row)
        source = best_source(self._model, trained, known)
        return User(row, known, np.concatenate(excluded), trained, source)

    def _known(self, item_ids: Sequence[ExternalId]) -> np.ndarray:
        if isinstance(item_ids, str | bytes):
            raise InputError(
                "invalid-id",
                "Item ids must be a list. Received one text:"
                f" {shortened(item_ids)}. Put it into a list.",
            )
        return np.array([r for r in self.catalogue.rows(item_ids) if r], np.int32)

    def _lists(self, users: Sequence[User], k: int) -> list[Recommendations]:
        asked = [user for user in users if is_asked(self._model, user)]
        found = iter(
            self._model.search(as_queries(asked), excluded_of(asked), k)
            if self._model is not None and asked
            else ()
        )
        return [
            self._listed(u, next(found) if is_asked(self._model, u) else None, k)
            for u in users
        ]

    def _listed(self, user: User, found: Scored | None, k: int) -> Recommendations:
        answer = or_popular(
            user.source, found, lambda: self.catalogue.popular(k, user.excluded)
        )
        return Recommendations(
            items=self.catalogue.scored(answer.scored.rows, answer.scored.scores),
            source=answer.source,
            cold_start=not user.trained,
            model_version=self.model_version,
            degraded=answer.degraded,
        )


def _check_k(k: int) -> int:
    if isinstance(k, int | np.integer) and not isinstance(k, bool) and 1 <= k <= MAX_K:
        return int(k)
    raise InputError(
        "invalid-k",
        f"`k` must be a whole number from 1 to {MAX_K}. Received: {shortened(k)}."
        " Leave it out for 10 items.",
    )
