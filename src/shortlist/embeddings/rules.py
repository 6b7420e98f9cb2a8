"""The update rule of a table as plain numbers, as the kernels read it.

Knows nothing of Keras. `optimizers.py` turns names and optimizer objects into rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["sgd", "adagrad", "rowwise_adagrad", "adam", "ftrl"]
KINDS: tuple[Kind, ...] = ("sgd", "adagrad", "rowwise_adagrad", "adam", "ftrl")

# State of each rule: its arrays, each with one value per row or per cell.
SLOTS: dict[Kind, tuple[tuple[str, Literal["row", "cell"]], ...]] = {
    "sgd": (),
    "adagrad": (("accumulator", "cell"),),
    "rowwise_adagrad": (("accumulator", "row"),),
    "adam": (("momentum", "cell"), ("velocity", "cell")),
    "ftrl": (("accumulator", "cell"), ("linear", "cell")),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the touched rows of a table are updated.

    Args:
        kind: the formula; see `reference.update_rows`.
        learning_rate: step size where the table has no schedule.
        epsilon: added to denominators.
        beta_1: decay of Adam's momentum.
        beta_2: decay of Adam's velocity.
        catch_up: whether Adam compensates for the steps that skipped a row.
        initial_accumulator: start of the accumulator of Adagrad and FTRL.
        learning_rate_power: exponent of FTRL, at most 0.
        l1: L1 strength of FTRL.
        l2_ftrl: L2 strength of FTRL's proximal step.
        l2_shrinkage: L2 strength of FTRL added to the gradient.
        beta: FTRL's beta.
        clip: greatest length of the gradient of one row; `None` for no limit.
        l2: adds `l2 * row` to the gradient of a touched row.
        weight_decay: subtracts `learning_rate * weight_decay * row` from a touched row.
    """

    kind: Kind = "adam"
    learning_rate: float = 0.001
    epsilon: float = 1e-7
    beta_1: float = 0.9
    beta_2: float = 0.999
    catch_up: bool = True
    initial_accumulator: float = 0.1
    learning_rate_power: float = -0.5
    l1: float = 0.0
    l2_ftrl: float = 0.0
    l2_shrinkage: float = 0.0
    beta: float = 0.0
    clip: float | None = None
    l2: float = 0.0
    weight_decay: float = 0.0

    @property
    def remembers_steps(self) -> bool:
        """Whether each row stores the number of its last update."""
        return self.kind == "adam" and self.catch_up
