"""Work on one item while the next ones are loaded and the finished ones saved, with few of them in memory at a time."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Loaded = TypeVar("Loaded")
Made = TypeVar("Made")
Saved = TypeVar("Saved")


def overlap(
    jobs: Iterable[Job],
    load: Callable[[Job], Loaded],
    work: Callable[[Job, Loaded], Made],
    save: Callable[[Job, Made], Saved],
    finish: Callable[[Job, Saved | Exception], None],
    workers: int,
    item_errors: tuple[type[Exception], ...],
) -> None:
    """Takes every job through `load`, `work` and `save`.

    `work` and `finish` run in the calling thread, in the order of the jobs; `load` and `save` in threads. At most
    2 · `workers` + 2 jobs are loaded, worked on or being saved at a time. An exception that ends the run, Ctrl-C too,
    is raised once all threads have ended: what was being saved has been saved whole.

    Args:
        jobs: in order.
        load, work, save: the three stages.
        finish: called with a job and what `save` returned, or the error that ended this job in any stage. What it
            raises ends the run.
        workers: threads that load, and as many that save.
        item_errors: exceptions that end one job; any other ends the run.
    """
    waiting = iter(jobs)
    loading: deque[tuple[Job, Future[Loaded]]] = deque()
    saving: deque[tuple[Job, Future[Saved] | Exception]] = deque()
    loaders, savers = ThreadPoolExecutor(workers), ThreadPoolExecutor(workers)

    def load_ahead() -> None:
        for job in waiting:
            loading.append((job, loaders.submit(load, job)))
            if len(loading) == workers:
                break

    def finish_first() -> None:
        job, saved = saving.popleft()
        outcome: Saved | Exception
        try:
            outcome = saved if isinstance(saved, Exception) else saved.result()
        except item_errors as error:
            outcome = error
        finish(job, outcome)

    try:
        load_ahead()
        while loading:
            job, future = loading.popleft()
            try:
                made = work(job, _result_then(future, load_ahead))
            except item_errors as error:
                saving.append((job, error))
            else:
                saving.append((job, savers.submit(save, job, made)))
                del made
            del future
            while len(saving) > workers or (saving and _is_done(saving[0][1])):
                finish_first()
        while saving:
            finish_first()
    finally:
        loaders.shutdown(cancel_futures=True)
        savers.shutdown(cancel_futures=True)


def _result_then(future: "Future[Loaded]", load_next: Callable[[], None]) -> Loaded:
    """What was loaded; the next job is on its way before this one is worked on."""
    try:
        return future.result()
    finally:
        load_next()


def _is_done(saved: "Future[Saved] | Exception") -> bool:
    return isinstance(saved, Exception) or saved.done()
