"""What the terminal shows of a report."""

from __future__ import annotations

import re
from typing import Any

from shortlist.cli.tables import items_table, metrics_table, verdict_lines
from shortlist.serving.results import ScoredItem


def report(value: float, slice_name: str = "country") -> dict[str, Any]:
    metrics = {"ndcg@10": value, "popularity_lift@10": -0.5}
    ends = {"ndcg@10": [value, value]}
    group = {
        "slice": slice_name,
        "group": "at",
        "users": 1_000_000,
        "small": True,
        "metrics": {"model": metrics, "popularity": metrics},
        "intervals": {"model": ends, "popularity": ends},
    }
    return {
        "users": 30,
        "users_excluded": 2,
        "unknown_users": {"events": 3, "users": 1},
        "metrics": {"model": metrics, "popularity": {**metrics, "ndcg@10": value / 2}},
        "intervals": {"model": ends, "popularity": ends},
        "pairs": {"pairs": 1234},
        "measured_in": {},
        "slices": [group],
        "notes": [],
    }


def test_cells_stay_apart_however_long_they_are() -> None:
    for value in (0.5, 12_345.25):
        for name in ("country", "c" * 60):
            lines = metrics_table(report(value, name)).splitlines()
            found = [line for line in lines if line.startswith(("ndcg@10 ", name))]
            shown = f"{value:.4f} [{value:.4f}, {value:.4f}]"
            other = f"{value / 2:.4f} [{value:.4f}, {value:.4f}]"
            cells = [re.split(" {2,}", line) for line in found]
            assert cells == [
                ["ndcg@10", shown, other, "2.00"],
                ["ndcg@10 by slice", "users", "model", "popularity"],
                [f"{name}: at", "1,000,000", shown, shown, "few users"],
            ]


def test_columns_stand_under_their_names() -> None:
    lines = metrics_table(report(12_345.25)).splitlines()[1:3]
    ends = [[m.end() for m in re.finditer(r"(\S+( \[.*?\])?)", line)] for line in lines]
    assert ends[0][1:] == ends[1][1:]


def test_what_may_be_below_0_has_no_ratio() -> None:
    lines = metrics_table(report(0.5)).splitlines()
    (lift,) = (line for line in lines if line.startswith("popularity_lift"))
    assert lift.split() == ["popularity_lift@10", "-0.5000", "-0.5000", "-"]


def test_every_metric_shown_is_explained_where_it_stands() -> None:
    text = metrics_table(report(0.5))
    explained = text[text.index("what they mean:") :].splitlines()
    assert explained[1].split(maxsplit=1) == [
        "ndcg",
        "held-out items among the first k; higher ranks count more",
    ]
    assert [line.split()[0] for line in explained[1:4]] == [
        "ndcg",
        "popularity_lift",
        "pairs",
    ]
    assert all(len(line) <= 80 for line in explained[:4])


def test_lists_say_whether_they_hold_seen_items() -> None:
    assert "seen items removed" in metrics_table(report(0.5))
    assert "seen items kept" in metrics_table(report(0.5) | {"repeats": True})


def test_the_verdict_comes_with_what_to_do_next() -> None:
    verdict = {"text": "Worse than popularity.", "next": "Try another kind."}
    assert verdict_lines(verdict) == [verdict["text"], verdict["next"], ""]
    assert "add ndcg" in " ".join(verdict_lines(None))


def test_an_id_is_printed_once() -> None:
    items = [
        ScoredItem(item_id=350, score=4.43, title=None),
        ScoredItem(item_id="a b", score=2.0, title=""),
        ScoredItem(item_id=7, score=1.0, title="Heat"),
    ]
    assert items_table(items).splitlines() == [
        "  1. 350  4.4300",
        "  2. a b  2.0000",
        "  3. Heat  [7]  1.0000",
    ]
