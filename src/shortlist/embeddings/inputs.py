"""What a model reads: the list of looked-up inputs, shared by models, bundle, server.

Knows nothing of Keras, so that a server can read the same list the model was built
with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from shortlist.data.schema import CONTEXT, HISTORY, ITEM, USER, Feature, Owner, Schema
from shortlist.errors import InputError

InputKind = Literal["categorical", "multi_valued", "numeric"]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of a tower or ranker, in the order in which they are concatenated.

    Args:
        feature: key in the batch.
        kind: `categorical` and `multi_valued` look up `table`; `numeric` is used as is.
        owner: whether the value belongs to the user or to the item.
        table: embedding table, or `None` for a numeric input.
        dim: number of columns the input contributes; 1 for a numeric input.
    """

    feature: str
    kind: InputKind
    owner: Owner
    table: str | None
    dim: int


def model_inputs(
    schema: Schema, *, embedding_dim: int, feature_dim: int, history_length: int
) -> tuple[Input, ...]:
    """The inputs of a model over `schema`: ids, history, then the side features.

    The history is a multi-valued feature of the user that looks up the item table.
    It is left out when `history_length` is 0. A bucketized feature is a categorical
    one to the model. Context features are left out: they belong to an event that is
    still to come when the server answers, and no request carries them.
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
                kind="multi_valued",
                owner="user",
                table=ITEM,
                dim=embedding_dim,
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
    return sum(i.dim for i in inputs)


def table_dims(inputs: Iterable[Input]) -> dict[str, int]:
    """Embedding width of every table the inputs look up, in order of first use.

    Raises:
        InputError: a width below 1, or two widths for one table.
    """
    dims: dict[str, int] = {}
    for i in inputs:
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
                " same width, or tables of their own.",
            )
    return dims
