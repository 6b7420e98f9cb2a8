"""Tables as JAX arrays, trained by stock `fit`, against the NumPy twin."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from shortlist.embeddings.host import reference
from shortlist.embeddings.rules import Rule
from shortlist.embeddings.specs import TableSpec
from shortlist.embeddings.table import Bags, Gradients, Table
from shortlist.errors import InputError, ShortlistError

IS_JAX = keras.backend.backend() == "jax"
pytestmark = pytest.mark.backend
if IS_JAX:
    import jax
    import jax.numpy as jnp

    device: Any = importlib.import_module("shortlist.embeddings.device.device_tables")
    updates: Any = importlib.import_module("shortlist.embeddings.device.arithmetic")
else:
    __test__ = False  # nothing here is asked of other backends

ROWS, DIM, BATCH = 12, 4, 6
ONE = (("one", 0, 1, "sum", False),)
SHARED = (
    ("one", 0, 1, "sum", False),
    ("list", 0, 4, "mean", False),
    ("weighted", 1, 3, "sqrtn", True),
)
ADAM = Rule(kind="adam", learning_rate=0.05)


def spec(name: str, rule: Rule = ADAM, **changes: Any) -> TableSpec:
    values = {
        "num_rows": ROWS,
        "dim": DIM,
        "schedule": None,
        "initializer": keras.initializers.RandomNormal(seed=len(name)),
    }
    return TableSpec(name=name, rule=rule, **{**values, **changes})


class Lookup(keras.layers.Layer):
    """The smallest layer around `DeviceTables`."""

    def __init__(
        self,
        specs: Any,
        features: Any,
        with_probe: bool = True,
        remat: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__(dtype=dtype, autocast=False)
        self.remat = remat
        self.device_tables = device.DeviceTables(self, specs)
        self.features = features
        self.with_probe = with_probe

    def build(self, input_shape: Any) -> None:
        self.device_tables.build()
        self.built = True

    def call(self, batch: Any, training: bool = False) -> Any:
        def look_up(batch: Any) -> Any:
            return self.device_tables.lookup(self.bags(batch), training)

        vectors, probe = (jax.checkpoint(look_up) if self.remat else look_up)(batch)
        if training and self.with_probe:
            self.add_loss(probe)
        return vectors

    def bags(self, batch: Any) -> Any:
        return [
            device.DeviceBags(
                name=name,
                table=table,
                ids=batch[name],
                weights=batch[f"{name}_weight"] if weighted else None,
                combiner=combiner,
            )
            for name, table, _, combiner, weighted in self.features
        ]


def predicted(at: Any, vectors: Any, kernel: Any, dtype: str) -> Any:
    """What the model makes of the vectors: the same code for model and oracle."""
    wide = at.concatenate([at.cast(v, dtype) for v in vectors], -1)
    return at.cast(at.matmul(wide, at.cast(kernel, dtype)), "float32")


class Toy(keras.Model):
    """Lookups and one dense weight that the main optimizer trains."""

    def __init__(
        self,
        specs: Any = None,
        features: Any = SHARED,
        dtype: str = "float32",
        calls: int = 1,
        use: str = "all",
        **options: Any,
    ) -> None:
        super().__init__()
        specs = [spec("a"), spec("bb")] if specs is None else specs
        policy = dtype if dtype == "float32" else f"mixed_{dtype}"
        self.lookup = Lookup(specs, features, dtype=policy, **options)
        self.number = dtype
        self.calls = calls
        self.use = use
        self.kernel = self.add_weight(
            shape=(len(features) * DIM, 1),
            initializer=keras.initializers.RandomNormal(seed=9),
        )

    @property
    def tables(self) -> Any:
        return self.lookup.device_tables

    def build(self, input_shape: Any) -> None:
        self.lookup.build(input_shape)
        self.built = True

    def call(self, batch: Any, training: bool = False) -> Any:
        vectors = self.lookup(batch, training=training)
        for _ in range(self.calls - 1):
            again = self.lookup(batch, training=training)
            vectors = [a + b for a, b in zip(vectors, again, strict=True)]
        if self.use == "sum":
            return sum(ops.sum(v, -1, keepdims=True) for v in vectors)
        if self.use == "none":
            vectors = [ops.zeros_like(v) for v in vectors]
        return predicted(ops, vectors, self.kernel, self.number)


def batch_of(features: Any, seed: int, size: int = BATCH) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    batch = {}
    for name, _, length, _, weighted in features:
        shape = (size,) if length == 1 else (size, length)
        # Rows 9 and later are never touched; -1 is padding in lists.
        batch[name] = random.integers(0 if length == 1 else -1, 9, shape, np.int32)
        if weighted:
            batch[f"{name}_weight"] = random.random(shape, np.float32)
            batch[f"{name}_weight"][0] = 0
    return batch


def labels(seed: int, size: int = BATCH) -> np.ndarray:
    return np.random.default_rng(seed + 1000).random((size, 1), np.float32)


class Oracle:
    """NumPy tables that take the steps of a model's device tables."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.specs = model.tables.specs
        self.tables = []
        for one, rows in zip(self.specs, model.tables.rows().values(), strict=True):
            table = Table.allocate(
                one.name, one.num_rows, one.dim, one.rule, trainable=one.trainable
            )
            table.rows[:] = rows
            self.tables.append(table)

    def step(self, batch: Any, y: Any, scale: float = 1.0, moves: bool = True) -> None:
        features = tuple(
            Bags(
                table=table,
                ids=batch[name],
                weights=batch[f"{name}_weight"] if weighted else None,
                combiner=combiner,
            )
            for name, table, _, combiner, weighted in self.model.lookup.features
        )
        vectors = reference.lookup(self.tables, features)
        kernel = jnp.asarray(self.model.kernel.numpy())

        def loss(vectors: Any) -> Any:
            found = predicted(ops, vectors, kernel, self.model.number)
            return scale * jnp.mean(jnp.square(found - y))

        found = jax.grad(loss)([jnp.asarray(v) for v in vectors])
        gradients = tuple(np.asarray(g) for g in found)
        if not moves:
            assert not all(np.isfinite(g).all() for g in gradients)
            return
        rates = [
            one.rule.learning_rate
            if one.schedule is None
            else float(one.schedule(table.step))
            for one, table in zip(self.specs, self.tables, strict=True)
        ]
        batches = [Gradients(features=features, gradients=gradients, scale=1 / scale)]
        reference.update(self.tables, batches, rates)

    def check(self, rtol: float = 2e-5, atol: float = 2e-6) -> None:
        state = self.model.tables.state()
        for table in self.tables:
            found = state[table.name]
            assert int(found["step"]) == table.step
            for key, values in {"rows": table.rows, **table.slots}.items():
                if not table.trainable and key != "rows":
                    continue
                np.testing.assert_allclose(
                    found[key], values, rtol, atol, err_msg=f"{table.name} {key}"
                )
            if table.rule.remembers_steps and table.trainable:
                moves = table.moves[: table.step + 1]
                np.testing.assert_allclose(found["moves"], moves, 1e-5, 1e-9)


def compiled(model: Any, optimizer: Any = "sgd", **options: Any) -> Any:
    model.compile(optimizer, "mse", **options)
    if not model.built:
        model.build(None)
    return model


def fit(model: Any, batch: Any, y: Any, **options: Any) -> Any:
    options = {"batch_size": BATCH, "verbose": 0, "shuffle": False, **options}
    return model.fit(batch, y, **options)


def snapshot(model: Any) -> list[np.ndarray]:
    """All arrays of the tables, bit by bit."""
    state = model.tables.state()
    return [array for arrays in state.values() for array in arrays.values()]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def train_beside_oracle(model: Any, steps: int = 5) -> Oracle:
    oracle = Oracle(model)
    for step in range(steps):
        batch, y = batch_of(model.lookup.features, step), labels(step)
        oracle.step(batch, y)
        fit(model, batch, y)
    return oracle


DECAY = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5, staircase=True)
RULES = {
    "sgd": (Rule(kind="sgd", learning_rate=0.5), None),
    "adagrad": (Rule(kind="adagrad", learning_rate=0.1), None),
    "rowwise_adagrad": (Rule(kind="rowwise_adagrad", learning_rate=0.1), None),
    "adam of the touched": (Rule(learning_rate=0.05, catch_up=False), None),
    "adam with a schedule": (Rule(weight_decay=0.01), DECAY),
    "adam without momentum": (Rule(beta_1=0.0, learning_rate=0.05), None),
    "ftrl": (Rule(kind="ftrl", learning_rate=0.1, l1=0.001, l2_ftrl=0.01), None),
    "ftrl of all terms": (
        Rule(
            kind="ftrl",
            learning_rate=0.1,
            learning_rate_power=-0.7,
            beta=0.1,
            l2_shrinkage=0.01,
        ),
        None,
    ),
    "clip, l2 and decay": (
        Rule(kind="sgd", learning_rate=0.5, clip=0.01, l2=0.1, weight_decay=0.1),
        DECAY,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_equals_the_numpy_twin(name: str) -> None:
    rule, schedule = RULES[name]
    specs = [spec("a", rule, schedule=schedule), spec("bb", rule, schedule=schedule)]
    model = compiled(Toy(specs))
    assert len([w for w in model.weights if w.path.endswith("rows")]) == 1
    before = model.tables.rows()
    oracle = train_beside_oracle(model, 6)
    oracle.check()
    model.tables.check()
    for name, rows in model.tables.rows().items():
        np.testing.assert_array_equal(rows[9:], before[name][9:])
        assert not np.array_equal(rows[:9], before[name][:9])


def test_lookup_equals_the_numpy_twin() -> None:
    model = compiled(Toy())
    batch = batch_of(SHARED, 3)
    batch["list"][0] = -1
    tables = Oracle(model).tables
    bags = [
        Bags(
            table=table,
            ids=batch[name],
            weights=batch.get(f"{name}_weight"),
            combiner=combiner,
        )
        for name, table, _, combiner, _ in SHARED
    ]
    expected = reference.lookup(tables, bags)
    for training in (False, True):
        found = model.lookup(batch, training=training)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, 1e-6, 1e-7)
    assert not np.any(found[1][0]) and not np.any(found[2][0])


# What surrounds the tables in stock Keras. Each cell says how the model is made and
# compiled; `fit` must leave the tables where the oracle is.
def frozen(model: Any) -> Any:
    model.lookup.trainable = False
    return compiled(model)


def half(model: Any) -> Any:
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), 2.0**8)
    return compiled(model, scaled)


CELLS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "bfloat16": ({"dtype": "bfloat16"}, compiled),
    "float16": ({"dtype": "float16"}, half),
    "fixed scale": (
        {},
        lambda m: compiled(m, keras.optimizers.SGD(0.01, loss_scale_factor=64.0)),
    ),
    "ema": (
        {},
        lambda m: compiled(m, keras.optimizers.SGD(0.01, use_ema=True)),
    ),
    "global clipnorm and weight decay": (
        {},
        lambda m: compiled(
            m, keras.optimizers.AdamW(0.01, weight_decay=0.5, global_clipnorm=1e-3)
        ),
    ),
    "jit": ({}, lambda m: compiled(m, jit_compile=True)),
    "eager": ({}, lambda m: compiled(m, run_eagerly=True)),
    "remat": ({"remat": True}, compiled),
}


def make(features: Any, **options: Any) -> Any:
    return Toy([spec("a")] if features is ONE else None, features, **options)


@pytest.mark.parametrize(
    "features",
    [pytest.param(ONE, marks=pytest.mark.slow), SHARED],
    ids=["one", "shared"],
)
@pytest.mark.parametrize("cell", CELLS)
def test_stock_training_is_exact(cell: str, features: Any) -> None:
    options, prepare = CELLS[cell]
    model = prepare(make(features, **options))
    oracle = Oracle(model)
    start = model.tables.rows()
    for step in range(2 if cell == "eager" else 4):
        batch, y = batch_of(features, step), labels(step)
        scale = 2.0**8 if cell == "float16" else 1.0
        oracle.step(batch, y, scale)
        if cell == "ema":
            # `fit` lets weights share buffers with their average and cannot go on.
            model.train_on_batch(batch, y)
        else:
            fit(model, batch, y)
    loose = 1e-2 if cell in ("bfloat16", "float16") else 2e-5
    oracle.check(loose, loose / 10)
    assert model.tables.refused == 0
    for name, rows in model.tables.rows().items():
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows[9:], start[name][9:])


@pytest.mark.parametrize("cell", CELLS)
def test_two_calls_in_a_step_are_refused(cell: str) -> None:
    options, prepare = CELLS[cell]
    model = prepare(make(ONE, calls=2, **options))
    with pytest.raises(ShortlistError, match="called once in a training step") as error:
        model.train_on_batch(batch_of(ONE, 0), labels(0))
    assert error.value.code == "called-twice"


def test_two_calls_that_only_the_step_can_see_are_found_at_once() -> None:
    model = compiled(Toy([spec("a")], ONE))
    batch = batch_of(ONE, 0)

    def loss(weights: Any) -> Any:
        with keras.StatelessScope(
            list(zip(model.lookup.trainable_variables, weights, strict=True))
        ):
            vectors, probe = model.tables.lookup(
                [device.DeviceBags(name="one", table=0, ids=batch["one"])], True
            )
        return sum(jnp.sum(v) for v in vectors) + probe

    once = jax.jit(loss)
    weights = [v.value for v in model.lookup.trainable_variables]
    added = jax.grad(lambda weights: once(weights) + once(weights))(weights)
    for variable, value in zip(model.lookup.trainable_variables, added, strict=True):
        variable.assign(value)
    with pytest.raises(ShortlistError, match="JAX would add up") as error:
        model.tables.check()
    assert error.value.code == "called-twice"
    before = model.tables.rows()
    fit(model, batch, labels(0))
    np.testing.assert_array_equal(model.tables.rows()["a"], before["a"])


def test_the_recomputation_of_keras_is_refused() -> None:
    with keras.RematScope(mode="full"):
        model = compiled(make(ONE))
    with pytest.raises(InputError, match="outside keras.RematScope") as error:
        model.train_on_batch(batch_of(ONE, 0), labels(0))
    assert error.value.code == "remat-unsupported"


@pytest.mark.parametrize("features", [ONE, SHARED], ids=["one", "shared"])
def test_frozen_layers_stay(features: Any) -> None:
    model = frozen(make(features))
    before = snapshot(model)
    for step in range(2):
        fit(model, batch_of(features, step), labels(step))
    assert_same(snapshot(model), before)
    model.lookup.trainable = True
    train_beside_oracle(compiled(model)).check()


def test_tables_that_are_not_trained_stay() -> None:
    specs = [spec("a", trainable=False), spec("bb")]
    model = compiled(Toy(specs))
    before = model.tables.rows()["a"]
    train_beside_oracle(model).check()
    np.testing.assert_array_equal(model.tables.rows()["a"], before)
    kept = [w for w in model.lookup.non_trainable_weights if w.path.endswith("rows")]
    assert [w.shape for w in kept] == [(ROWS, DIM)]
    only = compiled(Toy([spec("a", trainable=False)], ONE))
    fit(only, batch_of(ONE, 0), labels(0))
    only.tables.check()
    assert only.tables.step == 0


@pytest.mark.parametrize("features", [ONE, SHARED], ids=["one", "shared"])
def test_accumulation_is_found_and_refused(features: Any) -> None:
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)
    model = compiled(make(features), optimizer)
    fit(model, batch_of(features, 0), labels(0))
    fit(model, batch_of(features, 1), labels(1))
    with pytest.raises(InputError, match='placement="host"') as error:
        model.tables.check()
    assert error.value.code == "accumulation-unsupported"
    with pytest.raises(InputError, match="gradient_accumulation_steps"):
        model.tables.state()
    # No update happens on top of it, and the loss stays a number.
    plain = compiled(model)
    before = plain.tables.rows()
    losses = fit(plain, batch_of(features, 2), labels(2)).history["loss"]
    assert np.isfinite(losses).all()
    for name, rows in plain.tables.rows().items():
        np.testing.assert_array_equal(rows, before[name])


@pytest.mark.parametrize("features", [ONE, SHARED], ids=["one", "shared"])
def test_a_step_that_loss_scaling_skips_leaves_everything(features: Any) -> None:
    inner = keras.optimizers.SGD(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**15)
    model = compiled(make(features, dtype="float16"), optimizer)
    oracle = Oracle(model)
    batch = batch_of(features, 0)
    oracle.step(batch, labels(0) + 1e4, 2.0**15, moves=False)
    before = snapshot(model)
    kernel = model.kernel.numpy()
    fit(model, batch, labels(0) + 1e4)
    assert float(optimizer.dynamic_scale) == 2.0**14
    assert_same(snapshot(model), before)
    np.testing.assert_array_equal(model.kernel.numpy(), kernel)
    for step in range(3):
        oracle.step(batch_of(features, step), labels(step), 2.0**14)
        fit(model, batch_of(features, step), labels(step))
    oracle.check(1e-2, 1e-3)


@pytest.mark.parametrize("scale", [None, 8.0])
def test_gradients_that_are_no_numbers_are_dropped_and_counted(scale: Any) -> None:
    model = compiled(Toy(), keras.optimizers.SGD(0.0, loss_scale_factor=scale))
    batch = batch_of(SHARED, 0)
    fit(model, batch, labels(0))
    before, kernel = snapshot(model), model.kernel.numpy()
    fit(model, batch, labels(0) * np.nan)
    assert model.tables.refused == 1 and model.tables.step == 1
    assert_same(snapshot(model), before)
    model.kernel.assign(kernel)
    fit(model, batch, labels(0))
    assert model.tables.refused == 1 and model.tables.step == 2


def test_steps_per_execution_changes_nothing() -> None:
    batch, y = batch_of(SHARED, 5, 4 * BATCH), labels(5, 4 * BATCH)
    arrays = []
    for steps in (1, 4):
        model = compiled(Toy(), steps_per_execution=steps)
        fit(model, batch, y, epochs=2)
        assert model.tables.step == 8
        arrays.append(snapshot(model))
    assert_same(*arrays)


def test_early_stopping_restores_tables_and_state() -> None:
    model = compiled(Toy(), keras.optimizers.SGD(0.0))
    batch, y = batch_of(SHARED, 5), labels(5)
    kept: list[Any] = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["wanted"] = float(epoch)
            kept.append(snapshot(model))

    stop = keras.callbacks.EarlyStopping(
        "wanted", patience=2, mode="min", restore_best_weights=True
    )
    fit(model, batch, y, epochs=9, callbacks=[Keep(), stop])
    assert len(kept) == 3
    assert_same(snapshot(model), kept[0])


def test_evaluation_and_prediction_leave_everything() -> None:
    model = compiled(Toy())
    batch = batch_of(SHARED, 5)
    fit(model, batch, labels(5))
    before = snapshot(model)
    model.evaluate(batch, labels(5), verbose=0)
    model.predict(batch, verbose=0)
    assert_same(snapshot(model), before)


@pytest.mark.parametrize("value", [ROWS, -2, 2**31 - 1])
def test_ids_outside_a_table_move_nothing_and_are_named(value: int) -> None:
    model = compiled(Toy())
    batch = batch_of(SHARED, 5)
    before = snapshot(model)
    batch["list"][2, 1] = value
    fit(model, batch, labels(5))
    message = f"{value} for feature 'list', table 'a'"
    with pytest.raises(InputError, match=message) as error:
        model.tables.check()
    assert error.value.code == "id-out-of-range"
    model.tables.check()
    assert_same(snapshot(model), before)
    model.predict(batch, verbose=0)
    with pytest.raises(InputError, match=message):
        model.tables.check()
    batch["list"][2, 1] = 0
    expected = model.predict(batch, verbose=0)
    batch["list"][2, 1] = value
    np.testing.assert_array_equal(model.predict(batch, verbose=0), expected)


def test_ids_of_64_bits_do_not_wrap_into_the_table() -> None:
    model = compiled(Toy([spec("a")], ONE))
    bags = device.DeviceBags(name="one", table=0, ids=np.array([2**32 + 1]))
    model.tables.lookup([bags], False)
    with pytest.raises(InputError, match=f"{2**31 - 1} for feature 'one'"):
        model.tables.check()
    with pytest.raises(InputError, match="float32 for feature 'one'") as error:
        model.lookup({"one": np.zeros(3, np.float32)})
    assert error.value.code == "id-not-integer"


def test_ids_outside_show_where_no_weight_can_be_kept() -> None:
    model = compiled(make(ONE, remat=True))
    batch = {"one": np.array([1, ROWS], np.int32)}
    before = snapshot(model)
    assert np.isnan(model.predict(batch, verbose=0)).all()
    assert np.isnan(jax.jit(lambda ids: model.lookup({"one": ids}))(batch["one"])).all()
    found = jax.jit(lambda ids: model.lookup({"one": ids}))(np.array([1], np.int32))
    np.testing.assert_array_equal(found[0], model.tables.rows()["a"][1:2])
    fit(model, batch, labels(0)[:2])
    with pytest.raises(InputError, match="must be rows of their table"):
        model.tables.check()
    assert_same(snapshot(model), before)


def test_a_loss_without_its_scale_moves_nothing() -> None:
    model = compiled(Toy(with_probe=False))
    before = snapshot(model)
    fit(model, batch_of(SHARED, 5), labels(5))
    with pytest.raises(ShortlistError, match="without them") as error:
        model.tables.check()
    assert error.value.code == "lookup-not-in-loss"
    model.tables.check()
    assert_same(snapshot(model), before)


def test_a_loss_that_needs_no_vectors_moves_rows_as_zero_gradients_do() -> None:
    model = compiled(Toy(use="none"))
    fit(model, batch_of(SHARED, 5), labels(5))
    model.tables.check()
    assert model.tables.step == 1


def test_a_step_that_leaves_the_layer_out_is_found() -> None:
    model = compiled(Toy(use="none", with_probe=False))
    kept = model.tables.state()
    fit(model, batch_of(SHARED, 5), labels(5))
    with pytest.raises(ShortlistError, match="Load a checkpoint") as error:
        model.tables.check()
    assert error.value.code == "lookup-not-in-loss"
    model.tables.load(kept)
    model.tables.check()
    for name, rows in model.tables.rows().items():
        np.testing.assert_array_equal(rows, kept[name]["rows"])


def test_ema_that_overwrites_is_refused_by_keras() -> None:
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2)
    model = compiled(Toy([spec("a")], ONE), optimizer)
    with pytest.raises(TypeError, match="NoneType"):
        model.train_on_batch(batch_of(ONE, 0), labels(0))


def test_state_continues_a_training() -> None:
    first, second = compiled(Toy()), compiled(Toy())
    for step in range(3):
        fit(first, batch_of(SHARED, step), labels(step))
    state = first.tables.state()
    assert state["a"]["last_step"].dtype == np.int32
    assert set(state["a"]) == {
        *("rows", "momentum", "velocity", "last_step", "step", "moves")
    }
    second.tables.load(state)
    second.kernel.assign(first.kernel.numpy())
    assert_same(snapshot(second), snapshot(first))
    for model in (first, second):
        fit(model, batch_of(SHARED, 7), labels(7))
    assert_same(snapshot(second), snapshot(first))


def test_state_that_does_not_fit_changes_nothing() -> None:
    model = compiled(Toy())
    good = model.tables.state()
    before = snapshot(model)
    for change in (
        {"rows": np.zeros((3, DIM))},
        {"step": np.array(4)},
        {"moves": np.zeros(0)},
    ):
        with pytest.raises(InputError) as error:
            model.tables.load({**good, "bb": {**good["bb"], **change}})
        assert error.value.code == "table-state-invalid"
    assert_same(snapshot(model), before)


def test_moves_of_long_trainings_equal_those_of_the_host() -> None:
    """Steps beyond the ring, with learning rates that jump."""
    rule = Rule(beta_1=0.5, beta_2=0.9)
    ring, early, coarse = updates.RING, updates.EARLY, updates.COARSE
    num_steps = ring + early + 2 * coarse
    rates = np.where(np.arange(num_steps + 1) < 40, 0.1, 0.01).astype(np.float32)
    table = Table.allocate("a", 2, 2, rule)
    for step in range(1, num_steps + 1):
        table.begin_step(float(rates[step]))

    def extend(step: Any, moves: Any) -> Any:
        rate = updates.adam_rate(rule, jnp.asarray(rates)[step - 1], step - 1.0)
        rate = jnp.where(step > 1, rate, 0)
        return updates.extended_moves(rule, moves, rate, jnp.float32(step), step > 0)

    steps = jax.jit(lambda m: jax.lax.fori_loop(1, num_steps + 1, extend, m))
    moves = steps(jnp.zeros((2, ring)))
    last = np.array([0, 1, 39, 40, early - 1, early + coarse, num_steps - ring, 9e4, 0])
    last[-1] = num_steps - 1
    step = jnp.float32(num_steps)
    found = updates.moves_since(moves, jnp.asarray(last, jnp.float32), step)
    expected = np.where(last > 0, table.moves[last.astype(int)], 0)
    np.testing.assert_allclose(found, expected, 1e-5)
    again = updates.moves_to_host(np.asarray(moves), num_steps)
    np.testing.assert_allclose(again, table.moves[: num_steps + 1], 1e-4)
    back = updates.moves_from_host(again, num_steps)
    np.testing.assert_array_equal(back[1], np.asarray(moves)[1])


def test_a_step_copies_no_table() -> None:
    """The compiled step writes in place, whatever the loss."""
    for use in ("all", "sum"):
        model = compiled(Toy([spec("a", num_rows=50_000), spec("bb")], use=use))
        if use == "sum":  # gradients that depend on no vector
            model.compile("sgd", lambda y, found: ops.mean(found))
        model.optimizer.build(model.trainable_variables)
        batch, y = batch_of(SHARED, 5), labels(5)
        variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = tuple([v.value for v in group] for group in variables)
        step = jax.jit(model.train_step, donate_argnums=0)
        memory = step.lower(state, (batch, y)).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 4 * 50_000
        assert memory.alias_size_in_bytes > 3 * 4 * 50_000 * DIM


def test_what_the_device_does_not_do_is_refused_when_built() -> None:
    with pytest.raises(InputError, match="float16 for table 'a'") as error:
        compiled(Toy([spec("a", row_type="float16")], ONE))
    assert error.value.code == "row-type-unsupported"

    class Mesh:
        devices = np.zeros(2)

    class DataParallel:
        device_mesh = Mesh()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.distribution, "distribution", DataParallel)
        with pytest.raises(InputError, match="a DataParallel over 2") as error:
            compiled(Toy([spec("a")], ONE))
    assert error.value.code == "distribution-unsupported"


def test_too_many_steps_are_refused() -> None:
    model = compiled(Toy([spec("a", Rule(kind="sgd"))], ONE))
    state = model.tables.state()
    state["a"]["step"] = np.array(updates.MAX_STEP - 1)
    model.tables.load(state)
    fit(model, batch_of(ONE, 0), labels(0))
    before = model.tables.rows()["a"]
    assert not np.array_equal(before, state["a"]["rows"])
    fit(model, batch_of(ONE, 1), labels(1))
    np.testing.assert_array_equal(model.tables.rows()["a"], before)
    with pytest.raises(ShortlistError, match="Use larger batches") as error:
        model.tables.check()
    assert error.value.code == "too-many-steps"
