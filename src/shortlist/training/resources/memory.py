"""Out-of-memory errors, with the sizes of tables and batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from shortlist.embeddings.inputs import table_dims
from shortlist.errors import ResourceError
from shortlist.models.scorers.vectors import TWO_TOWER
from shortlist.training.job import Job

# Python and NumPy, JAX, TensorFlow (two), PyTorch on GPUs (two) and CPUs, and C++.
_SIGNS = (
    "MemoryError",
    "RESOURCE_EXHAUSTED",
    "ResourceExhausted",
    "OOM when allocating",
    "out of memory",
    "OutOfMemory",
    "can't allocate memory",
    "bad_alloc",
)
# Floats per value of a table: the value and its optimizer state. The one number per
# row of `rowwise_adagrad` is not counted.
_FLOATS = {"adagrad": 2, "adam": 3, "ftrl": 3, "rowwise_adagrad": 1, "sgd": 1}


@contextlib.contextmanager
def memory_errors(job: Job) -> Iterator[None]:
    """Turns an out-of-memory error into one that says what to reduce.

    Raises:
        ResourceError: `out-of-memory`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ResourceError) or not is_out_of_memory(error):
            raise
        told = f"{type(error).__name__} {error}"
        raise ResourceError(
            "out-of-memory",
            "Models, with their tables and a batch, must fit the free memory. They are"
            f" {'; '.join(_sizes(job))}. {_advice(job)}, limit the vocabularies"
            " (user_max_size, item_max_size and max_size of a feature), or free memory."
            f" The system said: {told[:200]}",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or a backend means out of memory."""
    told = f"{type(error).__name__} {error}"
    return any(sign in told for sign in _SIGNS)


def _advice(job: Job) -> str:
    """What to reduce; a scorer has neither tables nor batches."""
    lower = ["embedding_dim or batch_size"] if job.recipe.trained() else []
    if job.recipe.retrieval.kind != TWO_TOWER:
        lower += ["the factors or neighbours of the scorer"]
    return f"Lower {' or '.join(lower)}, take another kind of retrieval"


def _sizes(job: Job) -> list[str]:
    """Each table of each stage with its rows, width and size; else the scorer."""
    floats = _FLOATS[job.recipe.training.optimizer]
    lines = []
    if (kind := job.recipe.retrieval.kind) != TWO_TOWER:
        users, items = job.dataset.num_users, job.dataset.num_items
        lines.append(f"retrieval {kind} of {users:,} users x {items:,} items")
    for stage, section in job.recipe.trained().items():
        for name, dim in table_dims(job.inputs(section)).items():
            rows = job.dataset.table_rows[name]
            size = rows * dim * 4 * floats / 2**20
            lines.append(f"{stage}.{name} {rows:,} x {dim} ({size:,.1f} MiB)")
        lines.append(f"{stage}.batch_size {section.batch_size:,}")
    return lines
