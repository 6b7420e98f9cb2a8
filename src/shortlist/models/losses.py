"""Losses of the positive item of a row against negatives, from a matrix of scores.

Knows logits and labels; knows nothing of towers, tables or batches.

The losses take the same four matrices, `(batch_size, num_candidates)` float32:
    logits: score of each candidate for each row.
    labels: 1 at the positive item, once in a row, else 0.
    hits: 1 at other candidates that are the same item, else 0: accidental hits, which
        are not negatives.
    probability: probability of sampling each candidate, `(num_candidates,)`, or `None`
        for no correction.
"""

from __future__ import annotations

import keras
from keras import ops

from shortlist.embeddings.layer import Tensor
from shortlist.embeddings.original import keras_rs
from shortlist.models.options import LossName

REMOVED = 1e9  # subtracted from a logit, it removes the item from a softmax
LEAST_PROBABILITY = 1e-12  # KerasRS's default, 1e-6, is common in a large log


def retrieval_loss(
    name: LossName,
    logits: Tensor,
    labels: Tensor,
    hits: Tensor,
    probability: Tensor | None = None,
    *,
    hard_negatives: int | None = None,
    margin: float = 1.0,
) -> Tensor:
    """The loss of each row, `(batch_size,)`.

    Args:
        name: `sampled_softmax`, `bpr` or `hinge`.
        logits: see the module, as the other three.
        labels: where the positive item is.
        hits: where it is again.
        probability: of the candidates.
        hard_negatives: how many negatives of a row are kept, those with the highest
            logits after correction; all by default.
        margin: of `hinge`.

    References:
        Yi et al. (2019), Sampling-Bias-Corrected Neural Modeling for Large Corpus
        Item Recommendations: `log(probability)` is subtracted from a logit.
        Rendle et al. (2009), BPR: Bayesian Personalized Ranking from Implicit Feedback.
        Weston, Watkins (1999), Support Vector Machines for Multi-Class Pattern
        Recognition: the hinge over pairs.
    """
    if name == "sampled_softmax":
        logits = without_hits(corrected(logits, probability), hits)
        logits, labels = hardest(logits, labels, hard_negatives)
        softmax: Tensor = keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True
        )
        return softmax
    weights = pair_weights(labels, hits, None if hard_negatives else probability)
    if hard_negatives:
        # The hardest are not a sample of the items: all have the same weight.
        logits, labels = hardest(without_hits(logits, hits), labels, hard_negatives)
        kept = ops.cast(logits > -REMOVED / 2, "float32")
        weights = pair_weights(labels, (1 - kept) * (1 - labels), None)
    own = ops.sum(logits * labels, axis=-1, keepdims=True)
    ahead = own - logits
    pairs = ops.softplus(-ahead) if name == "bpr" else ops.relu(margin - ahead)
    # `where` too: a weight of 0 times a very large removed logit may overflow.
    return ops.sum(ops.where(weights > 0, pairs * weights, 0.0), axis=-1)


def corrected(logits: Tensor, probability: Tensor | None) -> Tensor:
    """Logits minus `log(probability)`: popular items are sampled more often."""
    if probability is None:
        return logits
    correction = keras_rs.layers.SamplingProbabilityCorrection(
        LEAST_PROBABILITY, dtype="float32"
    )
    found: Tensor = correction(logits, probability)
    return found


def accidental_hits(
    labels: Tensor, item_index: Tensor, candidate_index: Tensor
) -> Tensor:
    """1 where a candidate is the positive item but has no label.

    Args:
        labels: `(batch_size, num_candidates)`, 1 at the positive item.
        item_index: item rows of the batch, `(batch_size,)`.
        candidate_index: item rows of the candidates, `(num_candidates,)`.
    """
    return same_item(item_index, candidate_index) - labels


def same_item(item_index: Tensor, candidate_index: Tensor) -> Tensor:
    """1 where candidate j is the item of row i, else 0, float32."""
    same = ops.equal(
        ops.expand_dims(item_index, 1), ops.expand_dims(candidate_index, 0)
    )
    return ops.cast(same, "float32")


def without_hits(logits: Tensor, hits: Tensor) -> Tensor:
    """Logits that are very low at accidental hits.

    `keras_rs.layers.RemoveAccidentalHits` does not work up to version 0.4: it adds
    1e-40 to their logits, which removes nothing (keras-team/keras-rs#206).
    """
    return logits - hits * REMOVED


def hardest(logits: Tensor, labels: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """The positive item and the `count` negatives with the highest logits."""
    if count is None:
        return logits, labels
    mining = keras_rs.layers.HardNegativeMining(count, dtype="float32")
    found: tuple[Tensor, Tensor] = mining(logits, labels)
    return found


def pair_weights(labels: Tensor, hits: Tensor, probability: Tensor | None) -> Tensor:
    """Share of each negative in the loss of its row; they sum to 1, or 0 with none.

    With a probability the share is proportional to its inverse: the mean over a sample
    then estimates the mean over all items (self-normalized importance sampling).
    `keras_rs.losses` compares every two items of a list, which needs
    `batch_size * num_candidates ** 2` numbers; here each negative is compared with the
    positive item alone.
    """
    weights = (1 - labels) * (1 - hits)
    if probability is not None:
        weights = weights / ops.maximum(probability, LEAST_PROBABILITY)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total > 0, total, 1.0)


def mixture_probability(
    share: Tensor, uniform: Tensor, batch_size: Tensor, num_sampled: Tensor
) -> Tensor:
    """Probability of an item in a batch that is extended by uniform samples.

    Args:
        share: of the item in the events, `(n,)`.
        uniform: its probability in a uniform sample, `(n,)` or a scalar.
        batch_size: number of events in a batch.
        num_sampled: number of items sampled uniformly.

    References:
        Yang et al. (2020), Mixed Negative Sampling for Learning Two-tower Neural
        Networks in Recommendations, section 3.2.
    """
    from_batch = ops.cast(batch_size, "float32")
    sampled = ops.cast(num_sampled, "float32")
    return (from_batch * share + sampled * uniform) / (from_batch + sampled)


def weighted_mean(losses: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Mean of the losses `(batch_size,)`, or their weighted mean; 0 without weight."""
    if sample_weight is None:
        return ops.mean(losses)
    weights = ops.cast(sample_weight, "float32")
    return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-12)
