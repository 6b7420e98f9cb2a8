"""Ranking with stock Keras: python examples/ranking.py

Two rankers with different interactions predict ratings of the test part. Needs
`shortlist[jax]`; takes about 10 s.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np

from shortlist.data import Dataset, ExampleOptions, Loader, TrainingExamples
from shortlist.embeddings.inputs import model_inputs
from shortlist.models import Ranker
from shortlist.training import Batches
from small_log import prepared

HISTORY = 10


def batches(dataset: Dataset, part: str) -> Batches:
    """The events of a part with their ratings and the history before each of them."""
    earlier = ("train", "validation", "test")
    options = ExampleOptions(history_length=HISTORY, history_parts=earlier)
    examples = TrainingExamples(dataset, (part,), options)
    everything = Loader(examples, batch_size=256, drop_remainder=part == "train")
    return Batches(everything, reshuffle=part == "train")


def main(folder: Path) -> None:
    """Trains with early stopping on the validation part, evaluates on the test part."""
    dataset = prepared(folder)
    label = dataset.part("train").label
    test = dataset.part("test").label
    error = np.sqrt(np.mean((test - label.mean()) ** 2))
    print(f"mean rating: rmse {error:.4f}")

    inputs = model_inputs(
        dataset.schema, embedding_dim=8, feature_dim=4, history_length=HISTORY
    )
    for interaction in ("mlp", "deepfm"):
        keras.utils.set_random_seed(0)
        model = Ranker(
            inputs,
            dataset.table_rows,
            objective="explicit",
            interaction=interaction,
            hidden_units=(32,),
            dropout=0.2,
            mean_label=float(label.mean()),
            table_learning_rate=0.003,
            table_l2=1e-4,
        )
        model.compile(keras.optimizers.Adam(0.003), loss=model.loss_function())
        model.fit(
            batches(dataset, "train"),
            validation_data=batches(dataset, "validation"),
            epochs=6,
            callbacks=[keras.callbacks.EarlyStopping(patience=2)],
            shuffle=False,
            verbose=0,
        )
        loss = model.evaluate(batches(dataset, "test"), verbose=0)
        print(f"{interaction}: rmse {np.sqrt(loss):.4f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
