"""Chooses every setting of `accuracy.py` on splits of the training part alone.

The test part is dropped before anything is fitted. A model begins at the first value of
each option, the package's defaults or the plainest there are; one option after the
other takes the best of its values, by the mean over three splits of the training part
drawn as the public split is, until a time around changes nothing or twice around. A
value that is clearly worse on the first split is not tried on the others. Writes
`accuracy_settings.json`; takes an hour and a half on two processors (`--only MODEL`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accuracy_claims import models, protocol
from shortlist.data import Dataset
from shortlist.models.scorers import Blend, KnownItems, best_items
from shortlist.models.scorers.blend import coordinate_search

ROUNDS = 2
"""Times that the options of a model are gone through."""

HOPELESS = 0.004
"""What is worse than the best by more on the first split is not tried on the others."""


class Split(NamedTuple):
    """A split of the training part."""

    dataset: Dataset
    held_out: protocol.Log
    train: protocol.Log
    folder: Path


SPACES: dict[str, dict[str, list[Any]]] = {
    "popularity": {},
    "item_knn": {
        "similarity": ["cosine", "jaccard"],
        "neighbours": [200, 50, 100, 400],
        "shrinkage": [20.0, 0.0, 10.0, 30.0],
        "rating_weights": [False, True],
        "half_life_days": [None, 30.0],
    },
    "ease": {"l2": [500.0, 300.0, 700.0, 1000.0], "dropout": [0.0, 0.2, 0.5]},
    "als": {
        "alpha": [2.0, 5.0, 10.0, 20.0],
        "regularization": [30.0, 60.0, 80.0, 110.0, 150.0, 200.0],
        "frequency": [0.0, 0.3, 0.5, 0.7],
        "factors": [64, 32, 16],
        "iterations": [15, 8],
    },
    "burst_als": {
        "unobserved": [0.2, 0.03, 0.06, 0.1, 0.13, 0.4],
        "regularization": [0.1, 0.05, 0.2, 0.3, 0.4, 0.5, 0.8],
        "frequency": [0.5, 0.0, 0.3, 0.7, 1.0],
        "factors": [64, 32, 48, 96],
        "iterations": [12, 8, 16],
        "burst_weight": [0.0, 0.25, 0.5, 1.0],
        "burst_seconds": [600.0, 60.0, 300.0, 1800.0],
        "label_weight": [0.0, 0.05, 0.1, 0.15, 0.2],
        "user_balance": [0.0, 0.2, 0.4],
    },
    "factorization": {"factors": [10, 5, 20], "sweeps": [20, 40]},
    "two_tower": {
        "negatives": ["in_batch", "all"],
        "item_bias": [False, True],
        "projection": ["dense", "sum"],
        "temperature": [0.2, 0.1, 0.25, 0.35, 0.5],
        "unknown_rate": [0.0, 0.1, 0.3, 0.5],
        "unknown_within": [None, 300.0, 1800.0],
        "history_dropout": [0.0, 0.3, 0.5, 0.7],
        "dropout": [0.0, 0.2, 0.4],
        "weight_alpha": [0.0, 0.05, 0.15, 0.3],
        "learning_rate": [3e-3, 5e-3, 1e-2],
        "epochs": [10, 15, 20, 30],
        "embedding_dim": [65, 33],
    },
}
MEMBERS = ("burst_als", "two_tower", "ease", "item_knn", "als")


def main() -> None:
    """Tunes the named models, or all, and writes what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*SPACES, models.BLEND]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    train, _ = protocol.public_split(protocol.movielens())
    file = models.SETTINGS_FILE
    report = json.loads(file.read_text()) if file.exists() else {}
    report.setdefault("models", {})
    report["validation_seeds"] = list(protocol.VALIDATION_SEEDS)
    report.setdefault("validation", {})
    with tempfile.TemporaryDirectory() as folder:
        splits = []
        for number, parts in enumerate(protocol.validation_splits(train)):
            place = Path(folder) / str(number)
            place.mkdir()
            dataset = protocol.as_dataset(*parts, place)
            splits.append(Split(dataset, parts[1], parts[0], place))
        for name in arguments.only:
            if name == models.BLEND:
                settings, figures = tune_blend(report["models"], splits)
            else:
                settings, figures = tune(name, splits)
            report["models"][name], report["validation"][name] = settings, figures
            file.write_text(json.dumps(report, indent=2) + "\n")


def tune(name: str, splits: list[Split]) -> tuple[dict[str, Any], protocol.Figures]:
    """One option after the other, what is better kept."""
    space = SPACES[name]
    best = {option: values[0] for option, values in space.items()}
    figures = validated(name, best, splits)
    known = [best]
    for _ in range(ROUNDS):
        before = dict(best)
        for option, values in space.items():
            for value in values:
                tried = {**best, option: value}
                if tried in known:
                    continue
                known.append(tried)
                found = validated(name, tried, splits, to_beat=figures)
                if len(found) == len(splits) and quality(found) > quality(figures):
                    best, figures = tried, found
        if best == before:
            break
    return best, mean_of(figures)


def quality(found: list[protocol.Figures]) -> float:
    """What is chosen by: nDCG@10, or how small the error of the rating model is."""
    figures = mean_of(found)
    return -figures["rmse"] if "rmse" in figures else figures["ndcg"]


def validated(
    name: str,
    settings: Mapping[str, Any],
    splits: list[Split],
    to_beat: list[protocol.Figures] | None = None,
) -> list[protocol.Figures]:
    """Figures by split, their means printed; of the first alone where hopeless."""
    found: list[protocol.Figures] = []
    for split in splits:
        model, lists = fitted(name, settings, split)
        users = protocol.user_ids(split.dataset)
        figures = protocol.measure(users, lists, split.held_out)
        if name == models.RATING:
            figures |= protocol.rating_errors(model, split.dataset)
        found.append(figures)
        if to_beat and quality(found) < quality(to_beat[: len(found)]) - HOPELESS:
            break
    means = mean_of(found)
    shown = " ".join(f"{key} {value:.4f}" for key, value in means.items())
    tried = json.dumps(dict(settings))
    print(f"{name:<14} {shown} (of {len(found)})  {tried}", flush=True)
    return found


def fitted(
    name: str, settings: Mapping[str, Any], split: Split
) -> tuple[Any, np.ndarray]:
    """The model and its lists."""
    if name == models.TWO_TOWER:
        from accuracy_claims import two_tower

        folder = split.folder / "two_tower"
        dataset = two_tower.as_dataset(split.train, split.held_out, folder, settings)
        member = two_tower.fit(dataset, settings, folder, seed=0)
        return member, two_tower.ranked_items(member, dataset)
    model = models.make(name, settings, seed=0).fit(split.dataset)
    return model, protocol.ranked_items(model, split.dataset)


def mean_of(found: list[protocol.Figures]) -> protocol.Figures:
    """Means by name."""
    return {key: float(np.mean([f[key] for f in found])) for key in found[0]}


def tune_blend(
    chosen: Mapping[str, Any], splits: list[Split]
) -> tuple[dict[str, Any], protocol.Figures]:
    """Weights by the package's coordinate search on the mean over the splits."""
    tables = []
    for split in splits:
        dataset = split.dataset
        known = KnownItems(dataset, ("train",), values=True).of(
            np.arange(1, dataset.num_users, dtype=np.int32)
        )
        counts = dataset.item_counts("train").astype(np.float32)
        scores = {}
        for name in MEMBERS:
            model, _ = fitted(name, chosen[name], split)
            alone = Blend.of_members({name: model}, {name: 1.0}, counts)
            scores[name] = alone.score_all(known)
        tables.append((split, known, scores))

    def measured(weights: Mapping[str, float]) -> protocol.Figures:
        found = []
        for split, known, scores in tables:
            total = sum(np.float32(w) * scores[n] for n, w in weights.items() if w)
            _, rows = best_items(
                np.array(total), protocol.K, (known.offsets, known.items)
            )
            ids = split.dataset.vocabularies["item"].ids.fill_null(0).to_numpy()
            users = protocol.user_ids(split.dataset)
            found.append(protocol.measure(users, ids[rows], split.held_out))
        return mean_of(found)

    weights = coordinate_search(MEMBERS, lambda w: measured(w)["ndcg"])
    figures = measured(weights)
    print(f"blend {figures} {weights}", flush=True)
    kept = {name: weight for name, weight in weights.items() if weight}
    return {"weights": kept}, figures


if __name__ == "__main__":
    sys.exit(main())
