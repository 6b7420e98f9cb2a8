"""The files of an evaluation in a run: a report, and the metrics of each user.

    evaluation.json    the report, plain values, and the checksum of the other file
    evaluation.arrow   `user_index` and one column of float64 per `metric@k`

The second file allows to compare runs without their models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.atomic import atomic_file
from shortlist.data.store.checksums import (
    CHECKSUM,
    FileSum,
    content_problem,
    seal_problem,
    sealed,
    sum_files,
)
from shortlist.errors import ArtifactError

FILES = "files"
REPORT_FILE = "evaluation.json"
VALUES_FILE = "evaluation.arrow"
USER_COLUMN = "user_index"


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A measured model.

    Args:
        report: plain values, as `evaluate_pipeline` returns them.
        users: rows of the evaluated users, `(n,)`.
        names: `metric@k` of each column of `values`.
        values: `(n, len(names))` float64; NaN where a user has no value.
    """

    report: dict[str, Any]
    users: NDArray[np.int64]
    names: tuple[str, ...]
    values: NDArray[np.float64]

    def save(self, folder: str | Path) -> None:
        """Writes both files into a run, the report last.

        Raises:
            ResourceError: they cannot be written.
        """
        folder = Path(folder)
        columns: dict[str, NDArray[Any]] = {USER_COLUMN: self.users.astype(np.int32)}
        columns |= {n: self.values[:, i] for i, n in enumerate(self.names)}
        with atomic_file(folder / VALUES_FILE) as temporary:
            pl.DataFrame(columns).write_ipc(temporary, compression="zstd")
        sums = sum_files(folder, [VALUES_FILE])
        with atomic_file(folder / REPORT_FILE) as temporary:
            temporary.write_bytes(sealed({**self.report, FILES: sums}))

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: the run was not evaluated, or by an earlier version
                (`evaluation-missing`), or a file is damaged (`evaluation-damaged`).
        """
        folder = Path(folder)
        for name in (REPORT_FILE, VALUES_FILE):
            if not (folder / name).is_file():
                raise ArtifactError(
                    "evaluation-missing",
                    f"A run must be evaluated before it is compared. {str(folder)!r}"
                    f" has no {name}. Run `shortlist evaluate` with its recipe.",
                    file=folder,
                )
        file = folder / REPORT_FILE
        try:
            raw = file.read_bytes()
            report = msgspec.json.decode(raw, type=dict[str, Any])
            if problem := seal_problem(raw, required=FILES in report):
                raise _damaged(file, problem)
            report.pop(CHECKSUM, None)
            sums = msgspec.convert(report.pop(FILES, {}), dict[str, FileSum])
            file = folder / VALUES_FILE
            if problem := content_problem(folder, VALUES_FILE, sums.get(VALUES_FILE)):
                raise _damaged(file, problem)
            frame = pl.read_ipc(file)
            users = frame[USER_COLUMN].to_numpy().astype(np.int64)
            frame = frame.drop(USER_COLUMN)
            # Without a metric per user a frame without columns forgets its rows.
            values = frame.to_numpy().astype(np.float64)
            values = values.reshape(len(users), len(frame.columns))
        except (
            msgspec.MsgspecError,
            RecursionError,
            OSError,
            UnicodeError,
            pl.exceptions.PolarsError,
        ) as error:
            raise _damaged(file, str(error)) from error
        wrong = np.isinf(values).any() or np.isnan(values).all(axis=0).any()
        if report.get("users") != len(users) or wrong:
            raise _damaged(file, f"{report.get('users')} users and {len(users)} rows")
        return cls(
            report=report, users=users, names=tuple(frame.columns), values=values
        )


def _damaged(file: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        "evaluation-damaged",
        f"{file.name} must be what `shortlist evaluate` wrote. Reading it failed:"
        f" {problem}. Evaluate again.",
        file=file,
    )
