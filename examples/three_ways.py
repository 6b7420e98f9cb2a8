"""Sequential, functional, subclassed: python examples/three_ways.py

The three ways to write a Keras model, each with Shortlist's embedding tables, the
listwise loss and an ONNX graph of the dense part. Needs `shortlist[jax,serve]`; takes
about 10 s.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import onnxruntime

from shortlist.bundle.export import to_onnx
from shortlist.data import ExampleOptions, Negatives, TrainingExamples
from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig
from shortlist.models.listwise import ListwiseSoftmax
from small_log import prepared

DIM, NEGATIVES = 16, 3


def perceptron(width: int) -> keras.Model:
    """The dense part. Only this part is exported; tables are plain arrays."""
    dense = [keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((width,)), *dense])


def embedding(rows: dict[str, int], *names: str) -> dict[str, FeatureConfig]:
    """One table with its own Adam optimizer for each kind of id."""
    adam = keras.optimizers.Adam(0.01)
    tables = {
        name: TableConfig(name, rows[name], DIM, optimizer=adam) for name in names
    }
    return {name: FeatureConfig(name, table) for name, table in tables.items()}


def sequential(rows: dict[str, int]) -> keras.Model:
    """A stack of layers over one input: an item has the same score for all users."""
    lookup = DistributedEmbedding(embedding(rows, "item")["item"])
    ids = keras.Input((), dtype="int32")
    return keras.Sequential([ids, lookup, perceptron(DIM)])


def functional(rows: dict[str, int]) -> keras.Model:
    """A graph from named inputs to the score."""
    ids = {name: keras.Input((), dtype="int32", name=name) for name in ("user", "item")}
    vectors = DistributedEmbedding(embedding(rows, "user", "item"))(ids)
    both = keras.layers.Concatenate()([vectors["user"], vectors["item"]])
    return keras.Model(ids, perceptron(2 * DIM)(both))


class Subclassed(keras.Model):
    """A model class with its own `call`."""

    def __init__(self, rows: dict[str, int]) -> None:
        super().__init__()
        self.lookup = DistributedEmbedding(embedding(rows, "user", "item"))
        self.scorer = perceptron(3 * DIM)

    def call(self, ids: dict) -> object:
        """Scores of the rows of a batch, from both vectors and their product."""
        vectors = self.lookup(ids)
        user, item = vectors["user"], vectors["item"]
        return self.scorer(keras.ops.concatenate([user, item, user * item], axis=-1))


def main(folder: Path) -> None:
    """Trains all three on lists of an event and its sampled negatives."""
    dataset = prepared(folder)
    options = ExampleOptions(negatives=Negatives("uniform", NEGATIVES))
    source = TrainingExamples(dataset, options=options)
    rng = np.random.default_rng(0)
    batch = source.take(rng.permutation(len(source)), rng)
    ids = {"user": batch["user_index"], "item": batch["item_index"]}
    for make in (sequential, functional, Subclassed):
        keras.utils.set_random_seed(0)
        model = make(dataset.table_rows)
        model.compile(keras.optimizers.Adam(0.01), loss=ListwiseSoftmax(1 + NEGATIVES))
        x = ids["item"] if make is sequential else ids
        # A list is several consecutive rows, so rows must not be shuffled.
        options = {"batch_size": 512, "epochs": 3, "shuffle": False, "verbose": 0}
        losses = model.fit(x, batch["label"], **options).history["loss"]
        scorer = model.layers[-1]
        flat = rng.normal(size=(5, scorer.input_shape[-1])).astype(np.float32)
        session = onnxruntime.InferenceSession(to_onnx(scorer))
        (found,) = session.run(None, {session.get_inputs()[0].name: flat})
        difference = np.abs(found - scorer.predict(flat, verbose=0)).max()
        name = make.__name__.lower()
        print(f"{name}: loss {losses[0]:.3f} {losses[-1]:.3f}, onnx {difference:.0e}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
