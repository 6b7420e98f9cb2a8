"""Running out of memory, told with the sizes of what needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from shortlist.embeddings.inputs import table_dims
from shortlist.errors import ResourceError, ShortlistError
from shortlist.recipe import RankerSection, RetrievalSection
from shortlist.training.job import Job

_SIGNS = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory", "bad_alloc")
_ADAM = 3  # floats kept for each value of a table: itself and two moments


@contextlib.contextmanager
def memory_errors(job: Job) -> Iterator[None]:
    """Turns an error about memory into one that says what to lower.

    Raises:
        ResourceError: `out-of-memory`.
    """
    try:
        yield
    except ShortlistError:
        raise
    except Exception as error:
        told = f"{type(error).__name__} {error}"
        if not isinstance(error, MemoryError) and not any(s in told for s in _SIGNS):
            raise
        raise ResourceError(
            "out-of-memory",
            "The tables and a batch must fit the free memory. The tables are"
            f" {'; '.join(_sizes(job))}. Lower embedding_dim or batch_size, limit the"
            " vocabularies (user_max_size, item_max_size and max_size of a feature), or"
            f" free memory. The system said: {told[:200]}",
        ) from error


def _sizes(job: Job) -> list[str]:
    """Each table of each stage with its rows, width and bytes."""
    sections: dict[str, RetrievalSection | RankerSection] = {
        "retrieval": job.recipe.retrieval
    }
    if job.recipe.ranker.enabled:
        sections["ranker"] = job.recipe.ranker
    lines = []
    for stage, section in sections.items():
        for name, dim in table_dims(job.inputs(section)).items():
            rows = job.dataset.table_rows[name]
            size = rows * dim * 4 * _ADAM / 2**20
            lines.append(f"{stage}.{name} {rows:,} x {dim} ({size:,.1f} MiB)")
        lines.append(f"{stage}.batch_size {section.batch_size:,}")
    return lines
