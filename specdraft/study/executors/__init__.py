"""Executors: where the work of a study is done, in this process or by workers.

A work is cut into units (see `units`), values that can be sent away; whoever runs one sends events back. To add an
executor with workers, write a file here with a `Crew` and say in `executor_of` how it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from specdraft.config import Settings
from specdraft.study.executors.base import ENGINES, Executor
from specdraft.study.executors.crew import Crew
from specdraft.study.executors.worker import Threads
from specdraft.study.plan import StudyPlan
from specdraft.study.progress import Progress
from specdraft.traces.store import TraceStore

__all__ = ["ENGINES", "Executor", "executor_of"]


@contextmanager
def executor_of(plan: StudyPlan, store: TraceStore, progress: Progress) -> Iterator[Executor]:
    """The executor that a plan names; its workers end with the context."""
    if plan.settings.executor == "local":
        from specdraft.study.executors.local import Local

        yield Local(store, progress)
        return
    from specdraft.study.executors.driver import Driver

    with _as_raised():
        crew = _crew(plan.settings, store)
        try:
            yield Driver(crew, progress)
        finally:
            crew.close()


@contextmanager
def _as_raised() -> Iterator[None]:
    """What asks for an end, Ctrl-C say, is raised as it was: of a call of compiled code that it meets, Python says
    that it returned a result with an exception set."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        raise error.__cause__ from None


def _crew(settings: Settings, store: TraceStore) -> Crew:
    from specdraft.study.executors.shares import share_of

    if settings.executor == "processes":
        from specdraft.study.executors.processes import ProcessCrew

        share = share_of(settings)
        return ProcessCrew(share.workers, store.folder, share.threads, share.devices)
    from specdraft.study.executors.on_ray import RayCrew

    resources = settings.resources
    if resources.address is None:
        share = share_of(settings)
        return RayCrew(share.workers, store.folder, share.threads, share.gpus, None)
    threads = Threads(settings.threads or 1, settings.threads or 1)
    return RayCrew(resources.workers, store.folder, threads, resources.gpus_of_worker, resources.address)
