"""Training of the retrieval model: the first stage of a run."""

from __future__ import annotations

from shortlist.data.load.negatives import Negatives
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.vectors import TWO_TOWER
from shortlist.models.tower_scorer import TowerScorer
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import RetrievalSection
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.job import Job
from shortlist.training.loop.callbacks import RankingValidation
from shortlist.training.loop.fit_model import fit_model
from shortlist.training.scorers import fit_scorer


def train_retrieval(job: Job) -> tuple[Scorer, int]:
    """Trains the kind of retrieval that the recipe names; returns it and its epochs."""
    if job.recipe.retrieval.kind == TWO_TOWER:
        return train_two_tower(job)
    return fit_scorer(job, train_two_tower)


def train_two_tower(job: Job) -> tuple[TowerScorer, int]:
    """Trains the two-tower model; stops when validation nDCG stops rising."""
    section = job.recipe.retrieval
    model, batches = make_two_tower(job)

    def scorer() -> TowerScorer:
        """A new one for each state of the model: it keeps the item vectors."""
        return TowerScorer(model, job.dataset, section.history_length)

    callbacks = []
    if len(job.validation_users):
        callbacks.append(
            RankingValidation(lambda: job.measure(job.pipeline(scorer(), None, 0.0)))
        )
    epochs = fit_model(job, model, batches, section, callbacks)
    return scorer(), epochs


def make_two_tower(job: Job) -> tuple[TwoTower, Batches]:
    """The two-tower model of a recipe, compiled, and what it is trained on."""
    section = job.recipe.retrieval
    loader = job.loader(
        section,
        seed=job.recipe.seed,
        negatives=_negatives(section),
        interactions_only=True,
    )
    batches = Batches(loader, with_label=False)
    moves = job.optimization(section, batches)
    model = TwoTower(
        job.inputs(section, as_sequence=section.history != "mean"),
        job.dataset.table_rows,
        section,
        table_optimizer=moves.table_optimizer,
        table_learning_rate=moves.table_learning_rate,
        name="retrieval",
    )
    model.compile(optimizer=moves.dense)
    return model, batches


def _negatives(section: RetrievalSection) -> Negatives | None:
    """The sampled negatives of a batch, besides the items of its own rows."""
    if section.negatives == "mixed":
        return Negatives("mixed", section.mixed_negatives)
    return Negatives("all") if section.negatives == "all" else None
