"""From optimizer names and Keras optimizer objects to update rules.

An option that a table does not support raises; none is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from shortlist.embeddings.rules import KINDS, Rule
from shortlist.embeddings.specs import FollowedRate
from shortlist.errors import InputError, did_you_mean

Schedule = Callable[[Any], Any]
_NAMES = {kind.replace("_", ""): kind for kind in KINDS}


class _TableOnly:
    """An optimizer for a `TableConfig` only, not for `compile`."""

    def build(self, variables: Any) -> None:
        raise InputError(
            "optimizer-unsupported",
            f"`{type(self).__name__}` of shortlist.embeddings is for tables only."
            " Received it for the variables of a model. Pass it to TableConfig, and"
            " an optimizer of keras.optimizers to compile().",
        )


@keras.saving.register_keras_serializable(package="shortlist")
class Adam(_TableOnly, keras.optimizers.Adam):  # type: ignore[misc]
    """Adam for a table: only the rows of a batch are updated.

    Args:
        learning_rate: a number or a schedule.
        beta_1: decay of the momentum.
        beta_2: decay of the velocity.
        epsilon: added to the denominator.
        catch_up: whether a row first makes the moves that dense Adam would have made
            in the steps that skipped it. Without it this is the usual "lazy Adam",
            where rare rows keep an outdated momentum.

    References:
        Kingma and Ba (2015), Adam: A Method for Stochastic Optimization.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        catch_up: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            **kwargs,
        )
        self.catch_up = catch_up

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**super().get_config(), "catch_up": self.catch_up}


@keras.saving.register_keras_serializable(package="shortlist")
class RowwiseAdagrad(_TableOnly, keras.optimizers.Adagrad):  # type: ignore[misc]
    """Adagrad with one accumulator per row: the mean square of its gradients.

    Its state is 4 bytes per row, the smallest of all adaptive rules.

    Args:
        learning_rate: a number or a schedule.
        initial_accumulator_value: start of every accumulator.
        epsilon: added to the denominator.

    References:
        Mudigere et al. (2022), Software-Hardware Co-design for Fast and Scalable
        Training of Deep Learning Recommendation Models.
    """


def resolve_optimizer(
    optimizer: Any,
    table: str,
    *,
    learning_rate: Any = None,
    clip: float | None = None,
    l2: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Rule, Schedule | None]:
    """The update rule of a table, and its learning-rate schedule if it has one.

    Args:
        optimizer: `sgd`, `adagrad`, `rowwise_adagrad`, `adam`, `ftrl`, or an optimizer
            object of `keras.optimizers` or of this module, or its serialized form.
        table: its name, for messages.
        learning_rate: a number or a schedule in place of the optimizer's, or
            `"optimizer"` to follow the rate of the model's optimizer.
        clip: see `Rule`.
        l2: see `Rule`.
        weight_decay: see `Rule`.

    Raises:
        InputError: `optimizer-unsupported`.
    """
    optimizer = _to_object(optimizer, table)
    config = optimizer.get_config()
    _check_shared_options(config, table)
    rate = config["learning_rate"] if learning_rate is None else learning_rate
    schedule: Schedule | None = None
    if isinstance(rate, dict):
        rate = keras.optimizers.schedules.deserialize(rate)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        schedule, rate = rate, 0.0
    if isinstance(rate, str) and rate == "optimizer":
        schedule, rate = FollowedRate(), 0.0
    shared: dict[str, Any] = {
        "learning_rate": _number("learning_rate", rate, table, least=0.0),
        "clip": None if clip is None else _number("clip", clip, table, above=0.0),
        "l2": _number("l2", l2, table, least=0.0),
        "weight_decay": _number("weight_decay", weight_decay, table, least=0.0),
    }
    return Rule(**_own_options(optimizer, config, table), **shared), schedule


def _to_object(optimizer: Any, table: str) -> keras.optimizers.Optimizer:
    if isinstance(optimizer, str):
        key = optimizer.lower().replace("_", "").replace("-", "")
        if key not in _NAMES:
            raise _unsupported(
                table,
                f"optimizer={optimizer!r}.{did_you_mean(optimizer, KINDS)}",
            )
        classes: dict[str, Any] = {
            "sgd": keras.optimizers.SGD,
            "adagrad": keras.optimizers.Adagrad,
            "rowwise_adagrad": RowwiseAdagrad,
            "adam": keras.optimizers.Adam,
            "ftrl": keras.optimizers.Ftrl,
        }
        return classes[_NAMES[key]]()
    if isinstance(optimizer, dict):
        optimizer = keras.saving.deserialize_keras_object(optimizer)
    return optimizer


def _own_options(optimizer: Any, config: dict[str, Any], table: str) -> dict[str, Any]:
    if _is(optimizer, keras.optimizers.SGD):
        for option in ("momentum", "nesterov"):
            if config[option]:
                raise _unsupported(table, f"SGD with {option}={config[option]!r}.")
        return {"kind": "sgd"}
    rowwise = isinstance(optimizer, RowwiseAdagrad)
    if rowwise or _is(optimizer, keras.optimizers.Adagrad):
        return {
            "kind": "rowwise_adagrad" if rowwise else "adagrad",
            "epsilon": config["epsilon"],
            "initial_accumulator": config["initial_accumulator_value"],
        }
    if isinstance(optimizer, Adam) or _is(optimizer, keras.optimizers.Adam):
        if config["amsgrad"]:
            raise _unsupported(table, "Adam with amsgrad=True.")
        catch_up = config.get("catch_up", True)
        beta_1, beta_2 = config["beta_1"], config["beta_2"]
        if catch_up and not (0 <= beta_1 < 1 and beta_1**2 < 0.999 * beta_2):
            raise _unsupported(
                table,
                f"Adam with beta_1={beta_1}, beta_2={beta_2}: catching up needs"
                " beta_1 below the root of beta_2. Pass"
                " shortlist.embeddings.Adam(catch_up=False).",
            )
        if catch_up and not config["epsilon"] > 0:
            raise _unsupported(
                table,
                f"Adam with epsilon={config['epsilon']!r}: catching up divides by it."
                " Pass a positive one.",
            )
        return {
            "kind": "adam",
            "epsilon": config["epsilon"],
            "beta_1": beta_1,
            "beta_2": beta_2,
            "catch_up": catch_up,
        }
    if _is(optimizer, keras.optimizers.Ftrl):
        return {
            "kind": "ftrl",
            "learning_rate_power": config["learning_rate_power"],
            "initial_accumulator": config["initial_accumulator_value"],
            "l1": config["l1_regularization_strength"],
            "l2_ftrl": config["l2_regularization_strength"],
            "l2_shrinkage": config["l2_shrinkage_regularization_strength"],
            "beta": config["beta"],
        }
    raise _unsupported(table, f"{type(optimizer).__name__}.")


def _is(optimizer: Any, kind: Any) -> bool:
    """Whether it is that Keras optimizer, not a subclass with another formula.

    Under PyTorch Keras creates its own subclass with the same name.
    """
    return isinstance(optimizer, kind) and type(optimizer).__name__ == kind.__name__


# Options of every Keras optimizer, and what to use for a table instead.
_SHARED_OPTIONS = {
    "weight_decay": "TableConfig(weight_decay=...), which decays the touched rows",
    "clipnorm": "TableConfig(clip=...), the greatest length of a row's gradient",
    "global_clipnorm": "TableConfig(clip=...), the greatest length of a row's gradient",
    "clipvalue": "TableConfig(clip=...), the greatest length of a row's gradient",
    "use_ema": "a checkpoint of the best epoch",
    "loss_scale_factor": "the loss scaling of the model, which tables follow",
    "gradient_accumulation_steps": "that of the model's optimizer, which tables follow",
}


def _check_shared_options(config: dict[str, Any], table: str) -> None:
    for option, instead in _SHARED_OPTIONS.items():
        if config.get(option):
            raise _unsupported(table, f"{option}={config[option]!r}. Use {instead}.")


def _number(
    name: str,
    value: Any,
    table: str,
    *,
    least: float | None = None,
    above: float | None = None,
) -> float:
    number = None
    if not isinstance(value, (bool, str)):
        try:
            number = float(value)
        except (TypeError, ValueError):
            pass
    low = least if above is None else above
    if (
        number is None
        or not number < float("inf")
        or (least is not None and number < least)
        or (above is not None and number <= above)
    ):
        bound = "at least" if above is None else "above"
        raise InputError(
            "invalid-table",
            f"`{name}` must be a finite number {bound} {low}. Received: {value!r} for"
            f" table {table!r}. Change the table's configuration.",
        )
    return number


def _unsupported(table: str, received: str) -> InputError:
    return InputError(
        "optimizer-unsupported",
        "A table supports sgd, adagrad, rowwise_adagrad, adam and ftrl, without"
        " momentum, amsgrad or options of the whole model. Received for table"
        f" {table!r}: {received}",
    )
