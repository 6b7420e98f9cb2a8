"""The verdict of a report: is the model better than popularity?

Reads the plain values of reports; needs no models and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shortlist.evaluation.metrics.table import (
    MAIN_K,
    MAIN_METRIC,
    bare_name,
    higher_is_better,
)
from shortlist.evaluation.slices import SMALL_BELOW

BETTER, WORSE, UNSURE, EQUAL = "better", "worse", "unsure", "equal"
LEVEL = 0.05
"""P-values below it are significant."""
_FIRST = {
    "better": "Better than popularity",
    "worse": "Worse than popularity",
    "equal": "The same as popularity",
}


def verdict_of(report: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The verdict of a report on a held-out part.

    Args:
        report: `metrics`, `comparison`, `users` and `part` of an evaluation.
        kind: the retrieval model, as in `retrieval.kind` of a recipe.

    Returns: plain values: `result` (`better`, `worse`, `equal`, or `unsure` where the
        interval includes 0 or there are fewer than 30 users), `metric`, `model`,
        `popularity`, `difference`, `low`, `high`, `percent` (of popularity; `None`
        where that is 0), `is_below` (popularity's figure is better, sure or not),
        `users`, `text` and `next`, what to do. `None` if no metric with a preferred
        direction was measured for each user.
    """
    metric = _main_metric(report["comparison"], report["ks"])
    if metric is None:
        return None
    compared = report["comparison"][metric]
    model, beside = (report["metrics"][n][metric] for n in ("model", "popularity"))
    sign = 1.0 if higher_is_better(metric) else -1.0
    low, high = sorted(sign * compared[end] for end in ("low", "high"))
    gain = sign * compared["difference"]
    result = _result(gain, low, high, report["users"])
    found = {
        "result": result,
        "metric": metric,
        "model": model,
        "popularity": beside,
        "difference": compared["difference"],
        "low": compared["low"],
        "high": compared["high"],
        "percent": _percent(compared["difference"], beside),
        "is_below": gain < 0,
        "users": report["users"],
    }
    found["text"] = _text(found)
    found["next"] = advice(result, kind)
    return found


def validation_verdict(
    model: Mapping[str, float], popularity: Mapping[str, float], kind: str
) -> dict[str, Any] | None:
    """The verdict of a training, from means on the validation part.

    Args:
        model: metrics of what is served, such as `ndcg@10`.
        popularity: metrics of popularity, for the same users.
        kind: as for `verdict_of`.

    Returns: `result`, `metric`, `model`, `popularity`, `difference`, `percent`,
        `is_below`, `text` and `next`; `None` where nothing was measured.
    """
    metric = f"{MAIN_METRIC}@{MAIN_K}"
    if metric not in model or metric not in popularity:
        return None
    ours, theirs = model[metric], popularity[metric]
    result = BETTER if ours > theirs else WORSE if ours < theirs else EQUAL
    text = f"{_FIRST[result]} on validation: {_against(metric, ours, theirs)}."
    step = advice(result, kind)
    if result == BETTER:
        step = "Run `shortlist evaluate`: it says how sure that is, on the test part."
    return {
        "result": result,
        "metric": metric,
        "model": ours,
        "popularity": theirs,
        "difference": ours - theirs,
        "percent": _percent(ours - theirs, theirs),
        "is_below": ours < theirs,
        "text": text,
        "next": step,
    }


def board_verdict(board: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best run of a leaderboard, and whether it is significantly better.

    Args:
        board: what `rank_runs` returned.

    Returns: `result` (`better` if the first run is significantly better than the
        second, `worse` if it is worse than popularity, else `unsure`), `best`, `text`
        and `next`; `None` where no metric ranks the runs.
    """
    if board["higher_is_better"] is None:
        return None
    metric, first, pair = board["metric"], board["runs"][0], board["pairs"][0]
    value, beside = first["metrics"][metric], board["popularity"].get(metric)
    text = f"Best by {metric}: {first['run']}, {value:.4f}"
    is_below = False
    if beside is not None:
        is_below = value < beside if board["higher_is_better"] else value > beside
        percent = _percent(value - beside, beside)
        shown = "" if percent is None else f" ({percent_text(percent)})"
        text += f" against {beside:.4f} of popularity{shown}"
    is_sure = pair["p_holm"] < LEVEL
    told = "beyond chance" if is_sure else "no more than chance may give"
    text += f". Its difference of {abs(pair['difference']):.4f} from"
    text += f" {pair['second']} is {told} (p {pair['p_holm']:.2g})."
    if is_below:
        step = "No run is better than popularity: see what `shortlist evaluate` says."
    elif is_sure:
        step = f"Export it: `shortlist export --set output.run={first['run']}`."
    else:
        step = "Take whichever is simpler or faster, or evaluate on more users."
    result = WORSE if is_below else BETTER if is_sure else UNSURE
    return {"result": result, "best": first["run"], "text": text, "next": step}


def advice(result: str, kind: str) -> str:
    """What to do next after a verdict."""
    if result == BETTER:
        return "Export it: `shortlist export`."
    if kind == "popularity":
        return (
            "The model is popularity itself: try `--set retrieval.kind=ease`, or serve"
            " it as it is."
        )
    other = "item_knn" if kind == "ease" else "ease"
    tried = f"Try `shortlist train --overwrite --set retrieval.kind={other}"
    tried += " --set ranker.enabled=false`"
    if kind == "two_tower":
        tried += ", which needs less data and trains in seconds"
    if result == UNSURE:
        return f"{tried}, or hold out more events: more users make it surer."
    return f'{tried}, or serve `retrieval.kind = "popularity"`.'


def percent_text(percent: float) -> str:
    """A signed percentage with significant digits only."""
    return f"{percent:+,.0f} %" if abs(percent) >= 10 else f"{percent:+.1f} %"


def _main_metric(comparison: Mapping[str, Any], ks: list[int]) -> str | None:
    """nDCG at 10 or else the longest k; else the first metric with a direction."""
    known = [name for name in comparison if higher_is_better(name) is not None]
    k = MAIN_K if MAIN_K in ks else max(ks)
    known.sort(key=lambda name: bare_name(name) != MAIN_METRIC)
    at_k = [name for name in known if name.endswith(f"@{k}")]
    return next(iter([*at_k, *known]), None)


def _result(difference: float, low: float, high: float, users: int) -> str:
    if not difference and not low and not high:
        return EQUAL
    if users < SMALL_BELOW or low <= 0 <= high:
        return UNSURE
    return BETTER if difference > 0 else WORSE


def _percent(difference: float, beside: float) -> float | None:
    return 100.0 * difference / abs(beside) if beside else None


def _against(metric: str, model: float, beside: float) -> str:
    percent = _percent(model - beside, beside)
    shown = "" if percent is None else f" ({percent_text(percent)})"
    return f"{metric} {model:.4f} against {beside:.4f}{shown}"


def _text(found: Mapping[str, Any]) -> str:
    result, users, beside = found["result"], found["users"], found["popularity"]
    first = _FIRST.get(result)
    if first is None:
        better = "worse" if found["is_below"] else "better"
        first = f"Not surely {better} than popularity"
    figures = _against(found["metric"], found["model"], beside)
    if result == EQUAL:
        return f"{first}: {figures}, {users:,} users."
    ends = [found["low"], found["high"]]
    if beside:
        percents = [percent_text(100.0 * end / abs(beside)) for end in ends]
        interval = " to ".join(percents)
    else:
        interval = " to ".join(f"{end:+.4f}" for end in ends)
    told = f"{first}: {figures}; 95 % interval {interval}, {users:,} users"
    if result == UNSURE:
        few = users < SMALL_BELOW
        told += ", which are too few to tell" if few else ": it includes 0"
    return f"{told}."
