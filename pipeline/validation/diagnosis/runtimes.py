"""Cause of a failure in another interpreter alone."""

from __future__ import annotations

from pipeline.report.wording import join_names

from .evidence import Cause, Evidence


def other_runtime(evidence: Evidence) -> Cause:
    """The candidate is right here, and fails in another interpreter."""
    failed = evidence.failed_elsewhere
    names = join_names(list(dict.fromkeys(one.runtime for one in failed)))
    first = failed[0].sentence().removesuffix(".")
    return Cause(
        "other_runtime",
        f"it is right here, and not in {names}: {first}. "
        "Serve it with the versions that it was made with, or leave that runtime out of [validation] runtimes",
    )
