"""The verdict of the data report: whether a log can be trained on, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from shortlist.data.check.report import Counts, Verdict
from shortlist.data.findings import Finding

_STEPS = {
    "rows-skipped": 'correct the rows, or set on_error = "skip" under [log]',
    "order-not-time": 'set kind = "random" under [split], or name the timestamp column',
    "only-repeats": "set repeats = true under [evaluation] and [serving]",
    "copied-events": "remove the copies from one of the files",
    "ids-white-space": "write each id one way",
    "attribute-ids-unmatched": "name the attribute file of this log",
    "times-at-epoch": "write the true times, or name no timestamp column",
    "one-user": "name another user column, or give more events",
    "one-item": "name another item column, or give more events",
    "log-too-small": "give more events, or hold out fewer",
}
"""What to do about each problem, in a few words."""


def verdict_of(findings: Sequence[Finding], counts: Counts) -> Verdict:
    """Summarizes the findings.

    Args:
        findings: all of them.
        counts: of the log.
    """
    size = (
        f"{counts.events:,} events of {counts.users:,} users and {counts.items:,} items"
    )
    problems = dict.fromkeys(f.code for f in findings if f.severity == "problem")
    if problems:
        steps = (f"{code}: {_STEPS.get(code, 'see below')}" for code in problems)
        number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        summary = f"This log ({size}) is not ready. {number} to solve first:"
        message = f"{summary} {'; '.join(steps)}."
        return Verdict(ready=False, message=message)
    warnings = sum(finding.severity == "warning" for finding in findings)
    rest = "No problem was found."
    if warnings:
        kinds = "1 warning is" if warnings == 1 else f"{warnings} warnings are"
        rest = f"{kinds} worth a look first."
    message = f"This log can be trained on: {size}. {rest}"
    return Verdict(ready=True, message=message)
