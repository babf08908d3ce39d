"""Read the data while the graph is built, which does not need it: a wrong file stops the run before all else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import DataError
from pipeline.workers.child import Child

from .job import Job
from .model_reads import watch_for


@contextmanager
def checked_data(job: Job) -> Iterator[None]:
    """Read the job's data with the model's reader, in a process of its own, until the end of the block.

    Raises:
        PipelineError: the data cannot be read, or cannot be split.
    """
    source = job.data_source
    if source is None or job.source is None or job.source.is_code:
        yield
        return
    if not source.path.exists():
        if source.path != job.source.data:
            raise DataError("no such data file", where=source.path, next_step="Give one with --data")
        yield  # the model's own data, which a graph alone does not need
        return
    is_split = job.imported is None and not job.source.is_keras  # only Keras knows if its model is trained
    arguments = (job.source, source, job.settings.split if is_split else None)
    # Nothing of its reads counts here; but it has to see the environment that the stage sees which reads the data.
    watch = watch_for(job.source, job.paths, None)
    with Child("pipeline.training.examples:check_examples", *arguments, watch=watch) as child:
        yield
        child.receive()
