"""A run -> its models, ready to recommend."""

from __future__ import annotations

from shortlist.data.store.dataset import Dataset
from shortlist.models.pipeline import Pipeline
from shortlist.training.keras_imports import without_tensorflow
from shortlist.training.ranking import ranker_class
from shortlist.training.runs.checkpoint import load_model
from shortlist.training.runs.run import Run
from shortlist.training.scorers import load_retrieval


@without_tensorflow()
def load_pipeline(run: Run, dataset: Dataset, *, repeats: bool = False) -> Pipeline:
    """The trained models of a run over its dataset, ready to recommend.

    Args:
        run: a finished run.
        dataset: the one it was trained on.
        repeats: recommend items again that a user has interacted with.
    """
    run.check_contents(dataset)
    run.verify("retrieval")
    run.verify("ranker")
    history = run.info.retrieval_history
    retrieval = load_retrieval(run.path / "retrieval", dataset, history)
    ranker = None
    if (run.path / "ranker").is_dir():
        ranker = load_model(run.path / "ranker", ranker_class(run.recipe))
    return Pipeline(
        dataset,
        retrieval,
        ranker,
        ranker_history=run.info.ranker_history,
        ranker_weight=run.info.ranker_weight,
        candidates=run.info.candidates,
        repeats=repeats,
    )
