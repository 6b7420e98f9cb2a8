"""Small logs in the layouts people have, and settings for a training of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from shortlist.public_data.synthetic import SyntheticLog, generate

TINY = [
    "--set=retrieval.epochs=2",
    "--set=retrieval.embedding_dim=8",
    "--set=retrieval.batch_size=128",
    "--set=ranker.epochs=1",
    "--set=ranker.embedding_dim=4",
    "--set=ranker.batch_size=128",
]


def events() -> pl.DataFrame:
    """80 users x 40 items with columns user, item, rating and seconds."""
    log = generate(
        SyntheticLog(
            num_users=80, num_items=40, num_events=2_400, zipf_exponent=0.6, seed=3
        )
    )
    return pl.DataFrame(
        {
            "user": log.user,
            "item": log.item,
            "rating": log.rating.astype(np.int64),
            "seconds": log.timestamp_ms // 1000,
        }
    )


def write_movielens_100k(folder: Path) -> list[str]:
    """u.data, u.user and u.item."""
    frame = events()
    frame.write_csv(folder / "u.data", separator="\t", include_header=False)
    users = frame["user"].unique().sort()
    (folder / "u.user").write_text(
        "".join(f"{u}|{20 + u % 40}|{'MF'[u % 2]}|writer|{u:05}\n" for u in users)
    )
    flags = ["|".join(str(int(i % 19 == g)) for g in range(19)) for i in range(40)]
    (folder / "u.item").write_text(
        "".join(f"{i}|Film {i} (1990)|01-Jan-1990|||{flags[i]}\n" for i in range(40)),
        encoding="latin-1",
    )
    return ["u.data", "--users=u.user", "--items=u.item"]


def write_movielens_1m(folder: Path) -> list[str]:
    """ratings.dat and movies.dat, separated by `::`."""
    genres = ("Drama", "Drama|War", "War")
    lines = ("::".join(str(value) for value in row) for row in events().rows())
    (folder / "ratings.dat").write_text("".join(f"{line}\n" for line in lines))
    (folder / "movies.dat").write_text(
        "".join(f"{i}::Café {i} (1990)::{genres[i % 3]}\n" for i in range(40)),
        encoding="latin-1",
    )
    return ["ratings.dat", "--items=movies.dat"]


def write_movielens_25m(folder: Path) -> list[str]:
    """ratings.csv and movies.csv, as in 25M, 32M and latest-small."""
    names = ["userId", "movieId", "rating", "timestamp"]
    frame = events()
    frame.rename(dict(zip(frame.columns, names, strict=True))).write_csv(
        folder / "ratings.csv"
    )
    pl.DataFrame(
        {
            "movieId": range(40),
            "title": [f"Film, The {i}" for i in range(40)],
            "genres": [("Comedy|Drama", "War", "Drama")[i % 3] for i in range(40)],
        }
    ).write_csv(folder / "movies.csv")
    return ["ratings.csv", "--items=movies.csv"]


def write_renamed_csv(folder: Path) -> list[str]:
    """A CSV of one's own: odd names and ids, ISO times, semicolons."""
    events().select(
        who=pl.format("user {}/ü", "user"),
        what=pl.format('"item" {}', "item"),
        when=pl.from_epoch("seconds").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        stars="rating",
    ).write_csv(folder / "log.csv", separator=";")
    return ["log.csv"]
