"""What tables cannot follow is refused with a code, and moves nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from embeddings.matrix import (
    BACKEND,
    Model,
    check_training,
    make_data,
    make_layer,
    make_model,
    refused,
    set_start,
)
from embeddings.matrix_twin import LOOKUPS, Twin, start_rows

pytestmark = pytest.mark.backend


@pytest.fixture(params=[pytest.param("one", marks=pytest.mark.slow), "shared"])
def lookups(request: Any) -> Any:
    return LOOKUPS[request.param]


def check_at_start(model: Any) -> None:
    for table in model.layer.host_tables.tables:
        np.testing.assert_array_equal(
            table.rows, start_rows(LOOKUPS["shared"])[table.name]
        )
        assert table.step == 0


def optimizers() -> dict[str, Any]:
    kinds = keras.optimizers
    return {
        "plain": kinds.SGD(0.1),
        "accumulation": kinds.SGD(0.1, gradient_accumulation_steps=2),
        "scaling": kinds.LossScaleOptimizer(kinds.SGD(0.1), initial_scale=8.0),
        "clipping": kinds.SGD(0.1, global_clipnorm=0.1),
        "decay": kinds.AdamW(0.1, weight_decay=0.1),
    }


@pytest.mark.parametrize("kind", list(optimizers()))
def test_two_calls_in_one_step(lookups: Any, kind: str) -> None:
    model = make_model(lookups, optimizers()[kind], calls=2)
    batch, labels = make_data(lookups, 12)
    with refused("called-twice", "Call the layer once and share what it returns"):
        model.fit(batch, labels, batch_size=4, verbose=0)
        model.layer.sync()
    check_at_start(model)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"policy": "bfloat16"}])
def test_two_calls_otherwise(options: dict[str, Any]) -> None:
    lookups = LOOKUPS["shared"]
    model = make_model(lookups, calls=2, **options)
    batch, labels = make_data(lookups, 12)
    with refused("called-twice", "Call the layer once and share what it returns"):
        model.fit(batch, labels, batch_size=4, verbose=0)
    check_at_start(model)


def test_two_calls_without_training() -> None:
    lookups = LOOKUPS["shared"]
    model = make_model(lookups, calls=2)
    batch, _ = make_data(lookups, 6)
    wide, _ = Twin(lookups)._forward(Twin(lookups).bags(batch))
    expected = 2 * wide @ Twin(lookups).kernel
    found = model.predict(batch, batch_size=3, verbose=0)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


class Worse(keras.callbacks.Callback):
    """Says that the first epochs were ever better, the later ones ever worse."""

    def __init__(self, best: int) -> None:
        super().__init__()
        self.best = best

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["score"] = abs(epoch - self.best)


def stopping(best: int) -> list[Any]:
    stop = keras.callbacks.EarlyStopping(
        "score", patience=2, restore_best_weights=True, mode="min"
    )
    return [Worse(best), stop]


def test_weights_set_back_without_their_tables(lookups: Any) -> None:
    model = make_model(lookups)
    batch, labels = make_data(lookups, 12)
    with refused("handle-stale", "TableCheckpoint(restore_best=True)"):
        model.fit(
            batch, labels, batch_size=4, epochs=6, verbose=0, callbacks=stopping(1)
        )


def test_weights_set_back_to_those_of_now(lookups: Any) -> None:
    model = make_model(lookups)
    twin = Twin(lookups)
    check_training(model, twin, size=12, epochs=3, callbacks=stopping(2))
    check_training(model, twin, size=12, epochs=1)


def test_weights_of_another_model() -> None:
    lookups = LOOKUPS["shared"]
    trained, fresh = make_model(lookups), make_model(lookups)
    batch, labels = make_data(lookups, 12)
    trained.fit(batch, labels, batch_size=4, verbose=0)
    with refused("handle-foreign", "weights from set_weights() belong to other tables"):
        fresh.set_weights(trained.get_weights())
    weights = make_model(lookups).get_weights()
    with refused("handle-foreign", "belong to other tables"):
        trained.set_weights(weights)


def test_weights_of_an_earlier_step() -> None:
    lookups = LOOKUPS["shared"]
    model = make_model(lookups)
    weights = model.get_weights()
    batch, labels = make_data(lookups, 12)
    model.fit(batch, labels, batch_size=4, verbose=0)
    with refused(
        "handle-stale", "step 0 (set by set_weights()), but its tables are at step"
    ):
        model.set_weights(weights)


def test_the_scope_of_rematerialization_leaves_the_lookup_alone(lookups: Any) -> None:
    with keras.RematScope(mode="full"):
        layer = make_layer(lookups)
    model = make_model(lookups, layer=layer)
    check_training(model, Twin(lookups), size=12)


class RematerializedFunction(Model):
    def embed(self, batch: Any, training: bool) -> Any:
        return keras.remat(lambda ids: self.layer(ids))(batch)


class RematerializedLayer(Model):
    def embed(self, batch: Any, training: bool) -> Any:
        return keras.remat(self.layer)(batch)


@pytest.mark.parametrize("kind", [RematerializedFunction, RematerializedLayer])
def test_a_rematerialized_lookup(lookups: Any, kind: type[Model]) -> None:
    """PyTorch keeps what the lookup gave; JAX and TensorFlow lose the loss term."""
    model = make_model(lookups, kind=kind)
    if BACKEND == "torch":
        check_training(model, Twin(lookups), size=12)
        return
    batch, labels = make_data(lookups, 12)
    code, words = "loss-term-missing", "The loss must"
    if BACKEND == "jax" and kind is RematerializedFunction:
        code, words = "rematerialization-unsupported", "Move the layer out of it"
    with refused(code, words):
        model.fit(batch, labels, batch_size=4, verbose=0)
        model.layer.sync()
    check_at_start(model)


def test_a_rematerialized_model(lookups: Any) -> None:
    with keras.RematScope(mode="full"):
        model = make_model(lookups)
    if BACKEND == "jax":
        with refused("rematerialization-unsupported", "Move the layer out of it"):
            check_training(model, Twin(lookups), size=12)
        check_at_start(model)
    elif (
        BACKEND == "tensorflow"
    ):  # Keras passes keywords that tf.recompute_grad refuses
        with pytest.raises(ValueError, match="only when eager execution is enabled"):
            check_training(model, Twin(lookups), size=12)
        check_at_start(model)
    else:
        check_training(model, Twin(lookups), size=12)


class Forgetful(Model):
    """Its loss leaves out what layers add."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any
    ) -> Any:
        return keras.ops.mean((y_pred - y) ** 2)


def test_a_loss_without_the_terms_of_layers(lookups: Any) -> None:
    model = make_model(lookups, kind=Forgetful)
    batch, labels = make_data(lookups, 12)
    with refused("loss-term-missing", "Add sum(model.losses) in compute_loss"):
        model.fit(batch, labels, batch_size=4, verbose=0)
        model.layer.sync()
    check_at_start(model)


def test_a_loss_without_them_that_nothing_scales(lookups: Any) -> None:
    model = make_model(lookups, kind=Forgetful, layer_options={"loss_scale": 1.0})
    check_training(model, Twin(lookups), size=12)


def test_a_model_goes_on_after_a_refusal() -> None:
    lookups = LOOKUPS["shared"]
    model = make_model(lookups)
    twin = Twin(lookups)
    check_training(model, twin, size=12)
    batch, labels = make_data(lookups, 8)
    batch["a"][5] = 99
    with refused("id-out-of-range", "Received: 99 in feature 'a' for table 'moving'"):
        model.fit(batch, labels, batch_size=4, shuffle=False, verbose=0)
        model.layer.sync()
    set_start(model, lookups)
    assert all(
        np.isfinite(rows).all() for rows in model.layer.get_embedding_tables().values()
    )
    good, _ = make_data(lookups, 8)
    before = model.layer.host_tables.num_updates
    model.fit(good, labels, batch_size=4, verbose=0)
    model.layer.sync()
    assert model.layer.host_tables.num_updates == before + 2
