"""Input vectors are the looked-up blocks, side by side in the manifest's order."""

import numpy as np

from shortlist.models.scorers import Queries
from shortlist.serving.encoder import InputEncoder
from tiny_bundle import (
    AGES,
    RANKER_TABLES,
    SEGMENTS,
    TOWER_TABLES,
    YEARS,
    make_contents,
    tower_of,
)


def test_a_tower_reads_user_history_and_attributes():
    contents = make_contents()
    encoder = InputEncoder(tower_of(contents), contents)
    # Nothing was trained for user 4, so its id reads row 0.
    vectors = encoder.encode(Queries.from_lists([1, 4], [[5, 1, 2, 3], []]))
    tables = TOWER_TABLES
    expected = [
        [
            *tables["user"][1],
            *tables["item"][[1, 2, 3]].mean(0),
            *tables["segment"][SEGMENTS[1]],
            AGES[1],
        ],
        [*tables["user"][0], 0, 0, 0, *tables["segment"][SEGMENTS[4]], AGES[4]],
    ]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


def test_a_ranker_meets_one_user_with_many_items():
    contents = make_contents()
    encoder = InputEncoder(contents.ranker, contents)
    items = np.array([7, 3], np.int32)
    vectors = encoder.encode(Queries.from_lists([2], [[2]]), items)
    tables = RANKER_TABLES
    genres = [tables["genres"][[2]].mean(0), np.zeros(2)]  # of item rows 7 and 3
    expected = [
        [
            *tables["user"][2],
            *tables["item"][row],
            *tables["item"][2],
            *genre,
            YEARS[row],
            AGES[2],
        ]
        for row, genre in zip((7, 3), genres, strict=True)
    ]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)
