import threading
import time

import pytest

from ddps.cli.refine_pipeline import overlap


class Broken(Exception):
    pass


def run(jobs, workers=2, load=lambda job: job, work=lambda job, loaded: loaded, save=lambda job, made: made):
    finished = []
    overlap(jobs, load, work, save, lambda job, saved: finished.append((job, saved)), workers, (Broken,))
    return finished


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_results_come_in_the_order_of_the_jobs(workers, count):
    def slow_at_times(job, *_):
        time.sleep(0.002 * (job % 3))
        return job * 10

    finished = run(range(count), workers, load=slow_at_times, save=lambda job, made: slow_at_times(job) + made)
    assert finished == [(job, job * 20) for job in range(count)]


@pytest.mark.parametrize("stage", ["load", "work", "save"])
def test_an_error_is_its_jobs_own(stage):
    def fail(job, *_):
        if job in (1, 4):
            raise Broken(stage)
        return job

    finished = run(range(6), **{stage: fail})
    assert [job for job, _ in finished] == list(range(6))
    assert [job for job, saved in finished if isinstance(saved, Broken)] == [1, 4]


def test_loading_and_saving_go_on_during_work():
    loaded, saved = threading.Event(), threading.Event()

    def load(job):
        if job == 1:
            loaded.set()
        return job

    def work(job, _):
        if job == 0:
            assert loaded.wait(5)
        if job == 1:
            assert saved.wait(5)
        return job

    assert len(run(range(2), 1, load, work, lambda job, made: saved.set())) == 2


def test_few_jobs_are_in_memory_at_a_time():
    inside, most, lock = [], [], threading.Lock()

    def load(job):
        with lock:
            inside.append(job)
            most.append(len(inside))
        return job

    def save(job, made):
        time.sleep(0.003)
        return made

    def finish(job, saved):
        with lock:
            inside.remove(job)

    overlap(range(60), load, lambda job, loaded: loaded, save, finish, 3, ())
    assert max(most) <= 2 * 3 + 2 and not inside


@pytest.mark.parametrize("stage", ["load", "work", "save"])
def test_what_ends_the_run_lets_no_thread_behind(stage):
    threads, started = threading.active_count(), []

    def stop(job, *_):
        if job == 2:
            raise KeyboardInterrupt
        return job

    def save(job, made):
        started.append(job)
        time.sleep(0.01)
        started.remove(job)

    with pytest.raises(KeyboardInterrupt):
        run(range(50), **({"save": save} | {stage: stop}))
    assert threading.active_count() == threads and not started


def test_what_finish_raises_ends_the_run():
    def finish(job, saved):
        raise Broken

    with pytest.raises(Broken):
        overlap(range(5), lambda j: j, lambda j, x: x, lambda j, x: x, finish, 2, (Broken,))
