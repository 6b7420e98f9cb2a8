"""Pages and plots of evaluations: self-contained, escaped, the same in every run."""

from __future__ import annotations

import base64
import copy
import functools
import re
import struct
import sys
from typing import Any

import numpy as np
import pytest

from shortlist.errors import ResourceError
from shortlist.evaluation.cross_validation import cross_validation_table
from shortlist.evaluation.leaderboard import rank_runs
from shortlist.evaluation.pages import plots
from shortlist.evaluation.pages.html_page import (
    evaluation_html,
    folds_html,
    leaderboard_html,
)
from shortlist.evaluation.pages.plots import evaluation_plots, leaderboard_plots
from shortlist.evaluation.pages.tables import (
    evaluation_tables,
    leaderboard_tables,
    p_text,
    ratio_text,
)
from shortlist.evaluation.user_values import Evaluation
from shortlist.evaluation.verdict import board_verdict

EVIL = "<script>alert('x')</script>&\"$x$ \u6f22"  # a sign that the font lacks
KS = [5, 10]


def report() -> dict[str, Any]:
    names = [f"{name}@{k}" for k in KS for name in ("ndcg", "recall", "novelty")]
    values = {name: 0.1 * place for place, name in enumerate(names)}
    ends = {name: [value - 0.05, value + 0.05] for name, value in values.items()}
    group = {
        "slice": "genre",
        "owner": "item",
        "group": EVIL,
        "users": 12,
        "small": True,
        "metrics": {"model": {"ndcg@10": 0.3}, "popularity": {"ndcg@10": 0.2}},
        "intervals": {
            "model": {"ndcg@10": [0.2, 0.4]},
            "popularity": {"ndcg@10": [0.1, 0.3]},
        },
    }
    return {
        "part": "test",
        "dataset_fingerprint": "0" * 16,
        "ks": KS,
        "users": 30,
        "users_excluded": 2,
        "unknown_users": {"events": 3, "users": 1},
        "catalogue": 50,
        "metrics": {
            "model": {**values, "coverage@5": 0.5},
            "popularity": {**values, "ndcg@5": 0.0, "coverage@5": 0.1},
        },
        "intervals": {"model": ends, "popularity": ends},
        "pairs": {"pairs": 1234, "rmse": 0.9},
        "heads": {"click": {"auc": 0.75}},
        "reliability": [
            {"low": 0, "high": 0.1, "count": 3, "predicted": 0.05, "observed": 0.1}
        ],
        "slices": [group, {**copy.deepcopy(group), "group": "War", "small": False}],
        "lorenz": {
            "events": [0, 0.2, 1],
            "model": [0, 0.4, 1],
            "popularity": [0, 0, 1],
        },
        "measured_in": {"diversity": "item features"},
        "ranker_weight": 0.0,
        "notes": [EVIL],
    }


def board() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    names = ("ndcg@10", "recall@10")
    runs = {
        name: Evaluation(
            report=report(),
            users=np.arange(30),
            names=names,
            values=generator.random((30, 2)),
        )
        for name in ("run one", EVIL, "x" * 300)
    }
    return rank_runs(runs)


@functools.cache
def page() -> str:
    """Drawn once: it takes seconds."""
    return evaluation_html(report(), title=EVIL, details={EVIL: EVIL})


def test_a_plot_per_question_that_the_report_can_answer() -> None:
    names = ["metrics", "beyond", "slices", "popularity"]
    assert [p.name for p in evaluation_plots(report())] == [*names, "calibration"]
    bare = report() | {"reliability": [], "slices": []}
    for values in bare["metrics"].values():
        for name in [n for n in values if not n.startswith("ndcg")]:
            del values[name]
    assert [plot.name for plot in evaluation_plots(bare)] == ["metrics", "popularity"]
    found = leaderboard_plots(board())
    assert [plot.name for plot in found] == ["runs", "differences", "slices"]


def test_images_are_whole_and_the_same_in_every_run() -> None:
    first, again = evaluation_plots(report()), evaluation_plots(report())
    for plot, other in zip(first, again, strict=True):
        assert plot.png == other.png
        width, height = struct.unpack(">II", plot.png[16:24])
        assert plot.png[12:16] == b"IHDR" and plot.png.endswith(b"IEND\xaeB`\x82")
        # A phone shows 4.4 inches with letters about as large as on paper.
        assert 400 < width <= 4.4 * 144 and 200 < height < 2000
        assert b"Software" not in plot.png
        assert plot.alt.endswith(".")


@pytest.mark.parametrize("kind", ["evaluation", "leaderboard"])
def test_pages_hold_all_they_show_and_no_markup_of_others(kind: str) -> None:
    text = page() if kind == "evaluation" else leaderboard_html(board(), title=EVIL)
    images = re.findall(r'src="([^"]*)"', text)
    assert images and all(i.startswith("data:image/png;base64,") for i in images)
    for image in images:
        data = base64.b64decode(image.partition(",")[2], validate=True)
        assert data.startswith(b"\x89PNG")
    assert "default-src 'none'" in text and "img-src data:" in text
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(href|https?:|@import|url\()", text)
    for tag in ("table", "figure", "dl", "div", "p", "h2", "tbody"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag


def test_tables_hold_the_numbers_of_the_report() -> None:
    tables = {table.title: table for table in evaluation_tables(report())}
    assert list(tables) == ["Lists", "Pairs", "Heads", "ndcg@10 by slice"]
    lists = {row[0]: row[1:] for row in tables["Lists"].rows}
    shown = ("0.1000", "[0.0500, 0.1500]", "0.1000", "[0.0500, 0.1500]", "1.00")
    assert lists["recall@5"] == shown
    assert lists["ndcg@5"][-1] == "-"  # no ratio to 0
    assert lists["coverage@5"] == ("0.5000", "", "0.1000", "", "5.00")
    assert tables["Pairs"].rows == (("pairs", "1,234"), ("rmse", "0.9000"))
    assert tables["Heads"].rows == (("click: auc", "0.7500"),)
    assert tables["ndcg@10 by slice"].rows[0][1] == "12 (few)"
    runs, pairs = leaderboard_tables(board(), is_short=True)
    assert runs.header == ("run", "ndcg@10", "recall@10", "rmse")
    assert runs.rows[-1][0] == "popularity"
    assert len(pairs.rows) == 3
    assert ratio_text("popularity_lift@5", -0.5, 0.25) == "-"  # signed
    assert ratio_text("arp@5", 1.0, 0.25) == "4.00"
    whole = leaderboard_tables(board())[0]
    assert {"novelty@5", "recall@5"} < set(whole.header)
    assert (p_text(0.03125), p_text(1.0), p_text(1e-5)) == (
        "0.0312",
        "1.0000",
        "1.0e-05",
    )


def test_a_leaderboard_has_what_any_run_has() -> None:
    generator = np.random.default_rng(0)
    runs = {}
    for place, name in enumerate(("first", "second")):
        told = report()
        for values in told["metrics"].values():
            del values["novelty@5" if place == 0 else "recall@5"]
        told["pairs"] = {"rmse": 0.5} if place else {}
        runs[name] = Evaluation(
            report=told,
            users=np.arange(30),
            names=("ndcg@10",),
            values=generator.random((30, 1)),
        )
    runs["first"].report["metrics"]["model"]["ndcg@10"] = 0.9
    table = leaderboard_tables(rank_runs(runs))[0]
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert table.rows[0][0] == "first"
    assert cells["first"]["novelty@5"] == cells["first"]["rmse"] == "-"
    assert cells["second"]["novelty@5"] == cells["popularity"]["novelty@5"] == "0.2000"
    assert (cells["second"]["rmse"], cells["second"]["recall@5"]) == ("0.5000", "-")
    assert cells["popularity"]["recall@5"] == "0.1000"


def test_a_page_tells_what_was_measured_in_what_and_how_much_the_ranker_has() -> None:
    text = page()
    assert "<dt>diversity is measured in</dt><dd>item features</dd>" in text
    weight = "0, it did not help: items are in the order of retrieval"
    assert f"<dt>weight of the ranker</dt><dd>{weight}</dd>" in text


VERDICT = {"result": "worse", "text": f"Worse {EVIL}", "next": "Try `a <b>` first."}


def test_the_verdict_stands_first_and_metrics_are_explained() -> None:
    text = evaluation_html(report() | {"verdict": VERDICT}, plots=[])
    escaped = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;"
    first = text.index('<p class="verdict worse"><strong>Worse ' + escaped)
    assert text.index("<h1>") < first < text.index("<dl>") < text.index("<table>")
    assert "</strong>Try <code>a &lt;b&gt;</code> first.</p>" in text
    explained = text[text.index("What the metrics mean") :]
    for name in ("ndcg", "recall", "novelty", "coverage", "pairs", "rmse"):
        assert f"<dt>{name}</dt><dd>" in explained
    assert (
        "verdict"
        not in evaluation_html(report() | {"verdict": None}, plots=[]).partition(
            "<body>"
        )[2]
    )
    unsure = evaluation_html(
        report() | {"verdict": VERDICT | {"result": "equal"}}, plots=[]
    )
    assert '<p class="verdict unsure">' in unsure


def test_a_leaderboard_says_first_which_run_is_best() -> None:
    told = board()
    told["pairs"][0]["p_holm"] = 0.001
    found = board_verdict(told)
    assert found is not None and found["best"] == told["runs"][0]["run"]
    text = leaderboard_html(told, plots=[])
    assert text.index('<p class="verdict') < text.index("<dl>")
    assert "What the metrics mean" in text


@pytest.mark.parametrize(
    ("value", "popularity", "p", "higher", "result", "words"),
    [
        (0.3, 0.2, 0.001, True, "better", "beyond chance (p 0.001)"),
        (0.3, 0.2, 0.4, True, "unsure", "no more than chance may give (p 0.4)"),
        (0.1, 0.2, 0.001, True, "worse", "0.1000 against 0.2000 of popularity (-50 %)"),
        (0.1, 0.2, 0.001, False, "better", "(-50 %)"),  # lower is better
        (0.3, 0.2, 0.001, False, "worse", "(+50 %)"),
        (0.3, None, 0.001, True, "better", "Best by m@10: a, 0.3000. Its"),
        (0.3, 0.0, 0.001, True, "better", "against 0.0000 of popularity. Its"),
    ],
)
def test_the_best_run_is_told_from_chance_and_from_popularity(
    value: float,
    popularity: float | None,
    p: float,
    higher: bool,
    result: str,
    words: str,
) -> None:
    pair = {"first": "a", "second": "b", "difference": 0.01, "p_holm": p}
    found = board_verdict(
        {
            "metric": "m@10",
            "higher_is_better": higher,
            "runs": [{"run": "a", "metrics": {"m@10": value}}],
            "popularity": {} if popularity is None else {"m@10": popularity},
            "pairs": [pair],
        }
    )
    assert found is not None
    assert found["result"] == result and words in found["text"]
    assert board_verdict({"higher_is_better": None}) is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures as they are before they become PNG files."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "png_of", lambda figure: figures.append(figure) or b"")
    return figures


def test_every_run_is_in_the_legend_and_what_is_not_drawn_is_told(
    drawn: list[Any],
) -> None:
    told = report()
    told["slices"] = [{**told["slices"][0], "group": f"g{n}"} for n in range(33)]
    generator = np.random.default_rng(0)
    names = ["_private", "__dunder", *(f"run {n}" for n in range(9))]
    runs = {
        name: Evaluation(
            report=told,
            users=np.arange(30),
            names=("ndcg@10",),
            values=generator.random((30, 1)),
        )
        for name in names
    }
    leaderboard_plots(rank_runs(runs))
    slices = drawn[-1]
    (legend,) = slices.legends
    shown = [text.get_text().strip() for text in legend.get_texts()]
    assert shown == names[:8]  # equally good: as given
    label = slices.axes[0].get_xlabel()
    assert label == "ndcg@10 (3 more runs and 3 more groups are not drawn)"
    evaluation_plots(told)
    label = next(
        f.axes[0].get_xlabel()
        for f in drawn[3:]
        if "groups" in str(f.axes[0].get_xlabel())
    )
    assert label == "ndcg@10 (3 more groups are not drawn)"


def test_names_stand_above_their_rows_and_take_no_width(drawn: list[Any]) -> None:
    told = report()
    long = {**told["slices"][0], "group": "x" * 300}
    evaluation_plots(told | {"slices": [long, *told["slices"]]})
    axes = drawn[2].axes[0]
    assert axes.get_yticks().tolist() == []
    names = {text.get_text(): text.get_position() for text in axes.texts}
    assert [name[:1] for name in names] == ["…", "…", "g"]  # long, EVIL, War
    places = [line.get_ydata() for line in axes.lines]
    for row, (name, (across, up)) in enumerate(names.items()):
        assert len(name) <= 40 and across == 0
        here = [y for line in places for y in line if row - 0.5 <= y < row + 0.5]
        assert here and all(up < y for y in here)  # rows go down


def test_folds_are_drawn_with_their_means_and_told(drawn: list[Any]) -> None:
    values = {"mean": 0.2, "spread": 0.1, "low": 0.1, "high": 0.3, "values": [0.1, 0.3]}
    summary = {
        "folds": 2,
        "users": [1000, 20],
        "metrics": {"ndcg@5": values, "ndcg@10": values, "gini@10": values},
        "popularity": {"ndcg@10": {**values, "mean": 0.4, "values": [0.5, 0.3]}},
        "better_than_popularity": {"ndcg@10": 0},
        "pairs": {"pairs": values, "rmse": values},
    }
    text = folds_html(summary, title=EVIL, details={"runs": EVIL})
    assert text.count("<img") == 1 and "<script" not in text
    assert "<dd>1,000, 20</dd>" in text and "gini@10" in text
    (axes,) = drawn[0].axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["model"] == [0.1, 0.3]
    assert lines["popularity"] == [0.5, 0.3]
    assert axes.get_ylabel() == "ndcg@10"
    short = cross_validation_table(summary, is_short=True)
    assert [row[0] for row in short.rows] == ["ndcg@5", "ndcg@10", "rmse"]
    beyond = {**summary, "metrics": {"gini@10": values}, "pairs": {}}
    table = cross_validation_table(beyond, is_short=True)
    assert [row[0] for row in table.rows] == ["gini@10"]
    assert plots.fold_plots({**beyond, "metrics": {}}) == []


def test_without_matplotlib_the_install_line_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (
        lambda: evaluation_html(report()),
        lambda: leaderboard_html(board()),
    ):
        with pytest.raises(ResourceError, match=r"shortlist\[plots\]") as caught:
            draw()
        assert caught.value.code == "package-missing"
