"""Ratings and likes from one model: python examples/multi_task.py

Two heads share experts. Their combined score is exported as an ONNX graph and run
without Keras. Needs `shortlist[jax,serve]`; takes about 10 s.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import onnxruntime

from shortlist.bundle.export import to_onnx
from shortlist.data import Dataset, ExampleOptions, TrainingExamples
from shortlist.embeddings.features import concatenate
from shortlist.embeddings.inputs import model_inputs
from shortlist.evaluation.metrics.pointwise import auc, rmse
from shortlist.models import Head, MultiTask
from small_log import SCHEMA, prepared

HISTORY = 10


def arrays(dataset: Dataset, part: str) -> tuple[dict, dict]:
    """Features and labels of all events of a part, in random order."""
    examples = TrainingExamples(
        dataset, (part,), ExampleOptions(history_length=HISTORY)
    )
    generator = np.random.default_rng(0)
    features = examples.take(generator.permutation(len(examples)), generator)
    rating = features.pop("label")
    like = (rating >= SCHEMA.positive_from).astype(np.float32)
    return features, {"rating": rating, "like": like}


def main(folder: Path) -> None:
    """Trains both heads, evaluates each of them, runs the exported score."""
    keras.utils.set_random_seed(0)
    dataset = prepared(folder)
    inputs = model_inputs(
        dataset.schema, embedding_dim=8, feature_dim=4, history_length=HISTORY
    )
    features, labels = arrays(dataset, "train")
    model = MultiTask(
        inputs,
        dataset.table_rows,
        heads={
            "rating": Head(objective="explicit", weight=0.5),
            "like": Head(objective="binary"),
        },
        bottom="mmoe",
        num_experts=3,
        hidden_units=(32,),
        score={"rating": 0.5, "like": 1.0},
        dropout=0.2,
        mean_label=float(labels["rating"].mean()),
        table_learning_rate=0.003,
    )
    model.compile(keras.optimizers.Adam(0.003))  # losses and metrics of the heads
    model.fit(features, labels, batch_size=256, epochs=5, verbose=0)

    held_out, truth = arrays(dataset, "test")
    found = model.predict(held_out, verbose=0)
    print(f"rating: rmse {rmse(truth['rating'], found['rating'][:, 0]):.4f}")
    print(f"like: auc {auc(truth['like'], found['like'][:, 0]):.4f}")

    # As in a bundle: tables are arrays, and the dense part is a graph.
    few = {name: values[:4] for name, values in held_out.items()}
    vectors = concatenate(model.inputs_spec, model.lookup(few))
    session = onnxruntime.InferenceSession(to_onnx(model.scorer))
    flat = np.asarray(keras.ops.convert_to_numpy(vectors))
    (scores,) = session.run(None, {session.get_inputs()[0].name: flat})
    difference = np.abs(scores - model.score_on_batch(few)).max()
    print(f"onnx: differs by {difference:.0e}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
