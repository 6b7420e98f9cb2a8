"""Accuracy on MovieLens-100K by the protocol of a public table, against its rows.

Every setting comes from `accuracy_settings.json`, which `tune_accuracy.py` chose on
splits of the training part; the test part is measured here alone. Models whose training
draws numbers: mean and spread of three seeds. Rivals: the published figures, and in
the same run the package implicit and EASE in NumPy, its scores asserted to be ours.
"""

from __future__ import annotations

from accuracy_claims import claims, mixed, protocol
from accuracy_claims.table import cleared
from harness import main

PARTS = {
    "best": claims.best,
    "blend": claims.blend,
    "two-tower": claims.two_tower,
    "baselines": claims.baselines,
    "rating": claims.rating,
    "time": claims.seconds,
    "mixed": mixed.claims,
}

if __name__ == "__main__":
    with cleared():
        main(PARTS, protocol.facts)
