"""Scores of pairs, one by one and by file."""

import numpy as np
import polars as pl
import pytest

from shortlist.errors import InputError, LogError, ResourceError
from shortlist.serving.scoring import FORMATS, score_file
from tiny_bundle import HISTORIES, ITEM_IDS, USER_IDS, ranker_score


def test_scores_are_the_rankers_in_the_order_given(recommender):
    items = [ITEM_IDS[4], ITEM_IDS[0], "nowhere", ITEM_IDS[4]]
    expected = [ranker_score(2, HISTORIES[2], row) for row in (5, 1)]
    scores = recommender.score("bob", items)
    np.testing.assert_allclose(scores[:2], expected, rtol=1e-5)
    assert np.isnan(scores[2])
    assert scores[3] == scores[0]


def test_an_unknown_user_is_scored_as_the_out_of_vocabulary_user(recommender):
    scores = recommender.score("nobody", ITEM_IDS)
    expected = [ranker_score(0, [], row) for row in range(1, len(ITEM_IDS) + 1)]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_known_users_are_those_of_the_training(recommender):
    known = {user: recommender.is_known_user(user) for user in [*USER_IDS, "nobody"]}
    assert known == {
        "ann": True,
        "bob": True,
        "cat": True,
        "dan": False,
        "nobody": False,
    }
    assert recommender.suggest_user("bbo") == " Did you mean 'bob'?"
    assert recommender.suggest_user("zzzzzz") == ""


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_keeps_its_rows_and_gains_a_score(recommender, tmp_path, ending):
    users = ["bob", "nobody", "ann", "bob"]
    items = [ITEM_IDS[0], ITEM_IDS[3], "nowhere", ITEM_IDS[2]]
    pairs = pl.DataFrame({"item": items, "place": [4, 3, 2, 1], "user": users})
    pairs.write_parquet(tmp_path / "pairs.parquet")
    out = tmp_path / f"scores{ending}"
    counts = score_file(recommender, tmp_path / "pairs.parquet", out)
    assert counts == {"rows": 4, "unknown_users": 1, "unknown_items": 1}
    read = {
        ".csv": pl.read_csv,
        ".tsv": lambda path: pl.read_csv(path, separator="\t"),
        ".parquet": pl.read_parquet,
        ".ndjson": pl.read_ndjson,
        ".arrow": pl.read_ipc,
    }
    scored = read[ending](out)
    assert scored.drop("score").equals(pairs)
    expected = [ranker_score(2, HISTORIES[2], 1), ranker_score(0, [], 4)]
    np.testing.assert_allclose(scored["score"][:2].to_numpy(), expected, rtol=1e-4)
    assert scored["score"][2] is None


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_scored_tables_hold_no_formulas(recommender, tmp_path, ending):
    texts = ["=cmd|' /C calc'!A0", "@SUM(A1)", "-2+3"]
    pairs = pl.DataFrame(
        {"user_id": USER_IDS[0], "item_id": ITEM_IDS[0], "note": texts}
    )
    pairs.write_parquet(tmp_path / "pairs.parquet")
    out = tmp_path / f"out{ending}"
    score_file(recommender, tmp_path / "pairs.parquet", out)
    if ending == ".parquet":  # no spreadsheet runs it
        assert pl.read_parquet(out)["note"].to_list() == texts
    else:
        found = pl.read_csv(out, separator="," if ending == ".csv" else "\t")
        assert found["note"].to_list() == ["'" + text for text in texts]


def test_bad_files_are_refused_and_nothing_is_written(recommender, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,itme\nann,heat\n")
    with pytest.raises(LogError, match="Did you mean 'itme'") as missing:
        score_file(recommender, pairs, tmp_path / "out.csv")
    assert (missing.value.code, missing.value.column) == ("log-column-missing", "item")
    pairs.write_text("user,item\nann,heat\nann,\n")
    with pytest.raises(LogError, match="must have a user and an item id") as empty:
        score_file(recommender, pairs, tmp_path / "out.csv")
    assert (empty.value.code, empty.value.column) == ("log-id-missing", "item")
    with pytest.raises(InputError, match="must end in one of") as ending:
        score_file(recommender, pairs, tmp_path / "out.xlsx")
    assert ending.value.code == "output-format"
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.csv"]


def test_a_full_disk_leaves_the_old_scores(recommender, tmp_path, monkeypatch):
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    pairs.write_text("user,item\nann,heat\n")
    score_file(recommender, pairs, out)
    before = out.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="No space left") as refused:
        score_file(recommender, pairs, out, overwrite=True)
    assert refused.value.code == "no-space"
    assert out.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_pairs_are_never_overwritten_nor_their_score(recommender, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,item,score\nann,heat,9\n")
    before = pairs.read_bytes()
    with pytest.raises(InputError, match="another file than the pairs"):
        score_file(recommender, pairs, pairs, overwrite=True)
    with pytest.raises(LogError, match="must not have a column 'score'"):
        score_file(recommender, pairs, tmp_path / "out.csv")
    assert pairs.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.csv"]


@pytest.mark.parametrize("argument", ["history", "exclude_ids"])
def test_one_text_is_no_list_of_items(recommender, argument):
    with pytest.raises(InputError, match="must be a list") as caught:
        recommender.recommend("ann", **{argument: "heat"})
    assert caught.value.code == "invalid-id"
