"""Retrieval with stock Keras: python examples/retrieval.py

A two-tower model learns from the events of a log, recommends items and is compared with
popularity. Needs `shortlist[jax]`; takes about 10 s.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np

from shortlist.data import ExampleOptions, Loader, TrainingExamples
from shortlist.embeddings.inputs import model_inputs
from shortlist.evaluation import EvaluationOptions, evaluate_pipeline
from shortlist.models import Pipeline, TowerScorer, TwoTower
from shortlist.training import Batches
from small_log import prepared

HISTORY = 10  # number of newest items of a user that the user tower reads


def main(folder: Path) -> None:
    """Trains on the training part, evaluates on the test part."""
    keras.utils.set_random_seed(0)
    dataset = prepared(folder)

    # The inputs of the model: ids, history and every side feature of the schema.
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
    options = ExampleOptions(history_length=HISTORY, interactions_only=True)
    examples = TrainingExamples(dataset, options=options)
    batches = Batches(Loader(examples, batch_size=512), with_label=False)
    history = model.fit(batches, epochs=10, shuffle=False, verbose=0)
    losses = history.history["loss"]
    print(f"loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")

    pipeline = Pipeline(dataset, TowerScorer(model, dataset, HISTORY))
    report = evaluate_pipeline(
        pipeline, EvaluationOptions(ks=(10,), resamples=100)
    ).report
    for who in ("model", "popularity"):
        print(f"{who}: ndcg@10 {report['metrics'][who]['ndcg@10']:.4f}")

    known = ("train", "validation", "test")  # items in these parts are seen
    scores, items = pipeline.recommend(np.array([1]), 5, parts=known)
    for score, row in zip(scores[0], items[0], strict=True):
        print(f"item {dataset.vocabularies['item'].id(int(row))}: {score:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
