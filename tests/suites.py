"""Conformance suites: what every layer and every model must keep.

Subclass a suite in the test file of the class, set its two attributes, and get its
tests. No class ships without its suite.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from shortlist import native
from shortlist.embeddings.host import kernels, reference
from shortlist.embeddings.rules import KINDS, Kind, Rule
from shortlist.embeddings.storage.saving import table_layers
from shortlist.embeddings.table import COMBINERS, ROW_TYPES, Bags, Combiner, RowType
from shortlist.training.runs.checkpoint import load_model, save_model
from table_cases import (
    EVERYTHING,
    assert_same_table,
    random_bags,
    random_gradients,
    random_table,
)

Batch = dict[str, np.ndarray]


class LayerSuite:
    """For a layer that maps a batch to tensors.

    `make` returns a new layer; `batch` is one it can be called on, of at least two
    rows. Lists in it are padded with -1.
    """

    make: ClassVar[Callable[[], Any]]
    batch: ClassVar[Batch]

    def test_config_makes_an_equal_layer(self) -> None:
        layer = self.make()
        outputs = run(layer, self.batch)
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        assert again.get_config() == layer.get_config()
        run(again, self.batch)
        copy_weights(layer, again)
        assert_equal(run(again, self.batch), outputs)

    def test_keras_can_serialize_it(self) -> None:
        layer = self.make()
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(layer)
        )
        assert type(again) is type(layer)
        assert again.get_config() == layer.get_config()

    def test_shapes_are_those_it_announces(self) -> None:
        layer = self.make()
        outputs = run(layer, self.batch)
        shapes = {name: values.shape for name, values in self.batch.items()}
        announced = layer.compute_output_shape(shapes)
        assert {name: values.shape for name, values in outputs.items()} == announced

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        check_rows_alone(self.make(), self.batch)

    def test_padding_changes_nothing(self) -> None:
        check_padding(self.make(), self.batch)

    def test_unknown_ids_give_finite_numbers(self) -> None:
        check_unknown_ids(self.make(), self.batch)

    def test_one_seed_makes_one_layer(self) -> None:
        check_seeds(self.make, self.batch)


@dataclass(frozen=True)
class Trained:
    """A model after one step: the loss before it, weights and tables before and after.

    Tests may train the model further; what was captured stays.
    """

    model: Any
    loss: float
    weights: list[list[np.ndarray]]
    tables: list[list[dict[str, np.ndarray]]]


class ModelSuite:
    """For a model that is trained with stock `compile` and `fit`.

    `make` returns a new compiled model without dropout; `batch` is one it can be
    trained on, of at least two rows, with `label` if its loss needs one.
    """

    make: ClassVar[Callable[[], Any]]
    batch: ClassVar[Batch]

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls) -> Trained:
        """A model after one step, for all tests of the class: compiling it is slow."""
        suite = cls()
        model = suite.make()
        run(model, suite.features())
        weights, tables = [model.get_weights()], [copy_tables(model)]
        loss = suite.train(model)
        weights.append(model.get_weights())
        tables.append(copy_tables(model))
        return Trained(model, loss, weights, tables)

    def features(self) -> Batch:
        """The batch without its label."""
        return {name: v for name, v in self.batch.items() if name != "label"}

    def test_config_makes_an_equal_model(self) -> None:
        model = self.make()
        outputs = run(model, self.features())
        config = json.loads(json.dumps(model.get_config()))
        again = type(model).from_config(config)
        assert again.get_config() == model.get_config()
        run(again, self.features())
        copy_weights(model, again)
        assert_equal(run(again, self.features()), outputs)

    def test_a_checkpoint_gives_the_same_model(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        model = trained.model
        save_model(tmp_path / "saved", model)
        again = load_model(tmp_path / "saved", type(model))
        assert again.get_config() == model.get_config()
        assert_equal(run(again, self.features()), run(model, self.features()))

    def test_predict_equals_a_plain_call(self) -> None:
        model = self.make()
        called = run(model, self.features())
        predicted = as_dict(model.predict_on_batch(self.features()))
        assert called.keys() == predicted.keys()
        for name, values in predicted.items():
            np.testing.assert_allclose(values, called[name], rtol=1e-5, atol=1e-6)

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        check_rows_alone(self.make(), self.features())

    def test_padding_changes_nothing(self) -> None:
        check_padding(self.make(), self.features())

    def test_unknown_ids_give_finite_numbers(self) -> None:
        check_unknown_ids(self.make(), self.features())

    @pytest.mark.slow  # of all models; tests/training/test_fit.py has whole trainings
    def test_one_seed_makes_one_model_and_one_training(self) -> None:
        check_seeds(self.make, self.features(), self.train)

    def test_every_weight_is_trained(self, trained: Trained) -> None:
        model = trained.model
        for weight, old, new in zip(
            model.weights, trained.weights[0], trained.weights[1], strict=True
        ):
            assert not np.array_equal(old, new), f"{weight.path} stayed as it was"
        tables_before, tables_after = trained.tables
        for old_tables, new_tables in zip(tables_before, tables_after, strict=True):
            for name, rows in new_tables.items():
                assert not np.array_equal(rows, old_tables[name]), f"{name} stayed"

    def test_gradient_steps_lower_the_loss(self, trained: Trained) -> None:
        for _ in range(5):
            after = self.train(trained.model)
        assert np.isfinite(after) and after < trained.loss

    def train(self, model: Any) -> float:
        """One step; the loss before it."""
        loss = model.train_on_batch(self.features(), self.batch.get("label"))
        return float(np.asarray(loss).ravel()[0])


def copy_tables(model: Any) -> list[dict[str, np.ndarray]]:
    """The rows of the tables of each engine, by name."""
    return [
        {name: rows.copy() for name, rows in layer.get_embedding_tables().items()}
        for layer in table_layers(model)
    ]


def copy_weights(source: Any, target: Any) -> None:
    """Makes `target` equal to `source`: weights but for handles, then tables."""
    handles = {id(layer.handle) for layer in table_layers(target)}
    for mine, theirs in zip(source.weights, target.weights, strict=True):
        if id(theirs) not in handles:
            theirs.assign(mine.value)
    for mine, theirs in zip(table_layers(source), table_layers(target), strict=True):
        theirs.set_embedding_tables(mine.get_embedding_tables())


def run(layer: Any, batch: Batch) -> Batch:
    """Outputs by name; a single one is named `output`."""
    return as_dict(layer({name: values.copy() for name, values in batch.items()}))


def as_dict(outputs: Any) -> Batch:
    if not isinstance(outputs, dict):
        outputs = {"output": outputs}
    return {
        name: np.asarray(keras.ops.convert_to_numpy(values))
        for name, values in outputs.items()
    }


def assert_equal(found: Batch, expected: Batch) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def assert_close(found: Batch, expected: Batch) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(
            found[name], values, rtol=1e-5, atol=1e-6, err_msg=name
        )


def check_rows_alone(layer: Any, batch: Batch) -> None:
    together = run(layer, batch)
    num_rows = len(next(iter(batch.values())))
    assert num_rows > 1
    for row in range(num_rows):
        alone = run(layer, {name: v[row : row + 1] for name, v in batch.items()})
        expected = {name: v[row : row + 1] for name, v in together.items()}
        assert_close(alone, expected)


def check_padding(layer: Any, batch: Batch) -> None:
    """More -1 at the end of a list, or between its values, is not seen."""
    expected = run(layer, batch)
    widened = {
        name: np.pad(v, ((0, 0), (1, 3)), constant_values=-1) if v.ndim == 2 else v
        for name, v in batch.items()
    }
    assert any(values.ndim == 2 for values in batch.values())
    assert_close(run(layer, widened), expected)


def check_unknown_ids(layer: Any, batch: Batch) -> None:
    """Row 0 everywhere, and lists without any value."""
    expected = run(layer, batch)
    unknown = {
        name: v if v.dtype.kind == "f" else np.full_like(v, 0 if v.ndim == 1 else -1)
        for name, v in batch.items()
    }
    found = run(layer, unknown)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.shape == expected[name].shape
        assert np.isfinite(values).all(), name


def check_seeds(
    make: Callable[[], Any],
    batch: Batch,
    train: Callable[[Any], Any] | None = None,
) -> None:
    """The same seed gives the same outputs, before and after training; another others.

    A training adds nothing to the difference: its randomness is that of the weights.
    """
    before, after = [], []
    for seed in (7, 7, 8):
        keras.utils.set_random_seed(seed)
        layer = make()
        before.append(run(layer, batch))
        if train is not None and seed == 7:
            train(layer)
            after.append(run(layer, batch))
    assert_equal(before[1], before[0])
    if train is not None:
        assert_equal(after[1], after[0])
    assert any(not np.array_equal(before[2][name], v) for name, v in before[0].items())


class TableSuite:
    """For a way to look up and update host tables: every case against the oracle.

    `core` is what `shortlist.native` shall use: the compiled module, or None.
    """

    core: ClassVar[Any]

    @pytest.fixture(autouse=True)
    def _use_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "_core", self.core)

    @pytest.mark.parametrize("combiner", COMBINERS)
    @pytest.mark.parametrize("row_type", ROW_TYPES)
    @pytest.mark.parametrize("dim", [1, 5, 16, 24, 64, 130])
    def test_lookups_equal_the_oracle(
        self, dim: int, row_type: RowType, combiner: Combiner
    ) -> None:
        rng = np.random.default_rng(dim)
        tables = [random_table(rng, Rule(), 60, dim, row_type)]
        features = [*random_bags(rng, combiner=combiner)]
        vectors, bad = kernels.lookup_checked(tables, features)
        assert bad is None
        expected = reference.lookup(tables, features)
        for actual, twin in zip(vectors, expected, strict=True):
            assert actual.dtype == np.float32
            np.testing.assert_allclose(actual, twin, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("row_type", ROW_TYPES)
    @pytest.mark.parametrize("dim", [1, 17, 64])
    @pytest.mark.parametrize("full", [False, True])
    def test_updates_equal_the_oracle(
        self, kind: Kind, row_type: RowType, dim: int, full: bool
    ) -> None:
        """Five steps: later ones meet state, and rows that some steps skipped."""
        rng = np.random.default_rng(dim)
        rule = Rule(kind=kind, **(EVERYTHING if full else {}))
        table = random_table(rng, rule, 60, dim, row_type)
        twin = copy.deepcopy(table)
        for step in range(5):
            bags = [b for c in COMBINERS for b in random_bags(rng, combiner=c)]
            batches = [
                random_gradients(rng, bags[:3], dim, scale=0.5),
                random_gradients(rng, bags[3:] if step % 2 else [], dim),
            ]
            kernels.update([table], batches, [0.05])
            reference.update([twin], batches, [0.05])
            assert_same_table(table, twin)

    def test_an_empty_batch_counts_a_step_and_moves_nothing(self) -> None:
        rng = np.random.default_rng(0)
        table = random_table(rng, Rule(kind="sgd"), 4, 3, "float32")
        rows = table.rows.copy()
        empty = Bags(table=0, ids=np.zeros((0, 3), np.int32))
        nothing = Bags(table=0, ids=np.zeros(0, np.int64), offsets=np.zeros(3, int))
        assert [v.shape for v in kernels.lookup([table], [empty])] == [(0, 3)]
        np.testing.assert_array_equal(kernels.lookup([table], [nothing])[0], 0)
        gradients = random_gradients(rng, [empty, nothing], 3)
        kernels.update([table], [gradients], [1.0])
        kernels.update([table], [], [1.0])
        np.testing.assert_array_equal(table.rows, rows)
        assert table.step == 2

    def test_the_first_id_out_of_range_is_told_and_counts_as_row_0(self) -> None:
        table = random_table(np.random.default_rng(0), Rule(), 5, 2, "float32")
        good = Bags(table=0, ids=np.arange(5, dtype=np.int32))
        bad = Bags(table=0, ids=np.array([[1, -1, 2], [-1, -2, 5]]))
        vectors, first = kernels.lookup_checked([table], [good, bad, bad])
        assert first == (1, -2)
        np.testing.assert_allclose(vectors[1][1], 2 * table.rows[0], rtol=1e-6)
        last = Bags(table=0, ids=np.array([0, 5], np.int32))
        assert kernels.lookup_checked([table], [last])[1] == (0, 5)
