"""Retrieval with stock Keras: python examples/retrieval.py

A two-tower model learns from the events of a log and lists items for everybody, beside
the most popular ones. Needs `shortlist[jax]`; takes about 10 s.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np

from shortlist.data import Loader, TrainingExamples
from shortlist.embeddings.inputs import model_inputs
from shortlist.evaluation import evaluate_pipeline
from shortlist.models import Pipeline, TowerScorer, TwoTower
from shortlist.training import Batches
from small_log import prepared

HISTORY = 10  # newest items of a user that the user tower reads


def main(folder: Path) -> None:
    """Trains on the training part, evaluates on the test part."""
    keras.utils.set_random_seed(0)
    dataset = prepared(folder)

    # What the model reads: ids, history and every side feature of the schema.
    inputs = model_inputs(
        dataset.schema, embedding_dim=16, feature_dim=4, history_length=HISTORY
    )
    model = TwoTower(
        inputs,
        dataset.table_rows,
        embedding_dim=16,
        dropout=0.3,
        temperature=0.2,
        table_learning_rate=0.01,
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01))

    # The other items of a batch are the negatives of a row, so no label is needed.
    rows = TrainingExamples(dataset, history_length=HISTORY, interactions_only=True)
    batches = Batches(Loader(rows, batch_size=512), with_label=False)
    history = model.fit(batches, epochs=10, shuffle=False, verbose=0)
    losses = history.history["loss"]
    print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")

    pipeline = Pipeline(dataset, TowerScorer(model, dataset, HISTORY))
    report = evaluate_pipeline(pipeline, ks=(10,), resamples=100)
    for who in ("model", "popularity"):
        print(f"{who}: ndcg@10 {report['metrics'][who]['ndcg@10']:.4f}")

    known = ("train", "validation", "test")  # nothing of it is recommended again
    scores, items = pipeline.recommend(np.array([1]), 5, parts=known)
    for score, row in zip(scores[0], items[0], strict=True):
        print(f"item {dataset.vocabularies['item'].id(int(row))}: {score:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
