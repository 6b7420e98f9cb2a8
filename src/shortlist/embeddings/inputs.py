"""The inputs of a model, a list shared by models, bundle and server.

Knows nothing of Keras, so that a server can read the same list that the model was
built with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from shortlist.data.schema import CONTEXT, HISTORY, ITEM, USER, Feature, Owner, Schema
from shortlist.errors import InputError

InputKind = Literal["categorical", "multi_valued", "sequence", "numeric"]


class Input(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,  # inputs without a sequence are written as before
):
    """One input of a tower or ranker, in the order in which they are concatenated.

    Args:
        feature: key in the batch.
        kind: `categorical` and `multi_valued` look up `table`, and so does `sequence`,
            position by position; `numeric` is used as is.
        owner: whether the value belongs to the user or to the item.
        table: embedding table, or `None` for a numeric input.
        dim: width of a looked-up vector; 1 for a numeric input.
        length: positions of a `sequence`, `None` for every other kind.
    """

    feature: str
    kind: InputKind
    owner: Owner
    table: str | None
    dim: int
    length: int | None = None

    @property
    def width(self) -> int:
        """Columns the input contributes to a tower.

        A position of a sequence has `dim` columns and a mask column of 1; an empty
        position is all zeros.
        """
        return self.dim if self.length is None else self.length * (self.dim + 1)


def model_inputs(
    schema: Schema,
    *,
    embedding_dim: int,
    feature_dim: int,
    history_length: int,
    as_sequence: bool = False,
) -> tuple[Input, ...]:
    """The inputs of a model over `schema`: ids, history, then the side features.

    The history is a multi-valued feature of the user that looks up the item table; with
    `as_sequence` it is a sequence, so that a model can use its order. It is omitted if
    `history_length` is 0. A bucketized feature is categorical for the model. Context
    features are omitted: they belong to an event that has not happened when the server
    answers, so no request includes them.
    """
    dims = {USER: embedding_dim, ITEM: embedding_dim}
    inputs = [
        Input(
            feature="user_index",
            kind="categorical",
            owner="user",
            table=USER,
            dim=embedding_dim,
        ),
        Input(
            feature="item_index",
            kind="categorical",
            owner="item",
            table=ITEM,
            dim=embedding_dim,
        ),
    ]
    if history_length > 0:
        inputs.append(
            Input(
                feature=HISTORY,
                kind="sequence" if as_sequence else "multi_valued",
                owner="user",
                table=ITEM,
                dim=embedding_dim,
                length=history_length if as_sequence else None,
            )
        )
    for feature in schema.features:
        if feature.owner != CONTEXT:
            dim = dims.get(feature.table, feature_dim)
            inputs.append(_input_of(feature, dim))
    return tuple(inputs)


def _input_of(feature: Feature, dim: int) -> Input:
    return Input(
        feature=feature.name,
        kind="categorical" if feature.kind == "bucketized" else feature.kind,
        owner=feature.owner,
        table=feature.table if feature.is_looked_up else None,
        dim=dim if feature.is_looked_up else 1,
    )


def owned_by(inputs: Iterable[Input], owner: Owner) -> tuple[Input, ...]:
    """The inputs of one owner, in order."""
    return tuple(i for i in inputs if i.owner == owner)


def input_width(inputs: Iterable[Input]) -> int:
    """Number of columns of the concatenated inputs."""
    return sum(i.width for i in inputs)


def table_dims(inputs: Iterable[Input]) -> dict[str, int]:
    """Embedding width of every table the inputs look up, in order of first use.

    Raises:
        InputError: a width below 1, two widths for one table, or a sequence without
            a table and a length of at least 1.
    """
    dims: dict[str, int] = {}
    for i in inputs:
        _check_sequence(i)
        if not isinstance(i.dim, int) or isinstance(i.dim, bool) or i.dim < 1:
            raise InputError(
                "invalid-argument",
                "`dim` of an input must be a positive integer. Received:"
                f" dim={i.dim!r} for {i.feature!r}. Change it in the call or the"
                " recipe.",
            )
        if i.table is not None and dims.setdefault(i.table, i.dim) != i.dim:
            raise InputError(
                "invalid-argument",
                "All inputs of one table must have its `dim`. Received:"
                f" {dims[i.table]} and {i.dim} for table {i.table!r}. Give them the"
                " same width, or separate tables.",
            )
    return dims


def _check_sequence(i: Input) -> None:
    if i.kind == "sequence" and i.table is not None and i.length and i.length > 0:
        return
    if i.kind != "sequence" and i.length is None:
        return
    raise InputError(
        "invalid-argument",
        "Only an input of kind 'sequence' has a `length`, of at least 1, and it must"
        f" have a table. Received: {i.feature!r} of kind {i.kind!r} with"
        f" length={i.length!r} and table={i.table!r}.",
    )
