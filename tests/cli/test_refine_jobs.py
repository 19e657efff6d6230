import gc
import pickle
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

from ddps.cli.refine_item import Job
from ddps.cli.refine_jobs import Folders, Jobs

FOLDERS = Folders(Path("images"), Path("labels"), Path("out"), Path("looks"))


def make(count, folders=FOLDERS, suffix=".npz"):
    stems = [f"item{number:07}" for number in range(count)]
    predictions = [] if folders.predictions is None else [f"{stem}.png" for stem in stems]
    return Jobs(folders, stems, [f"{stem}.jpg" for stem in stems], predictions, suffix)


def test_a_job_has_the_paths_of_its_files():
    jobs = make(3)
    last = Job(Path("images/item0000002.jpg"), Path("labels/item0000002.png"), Path("out/item0000002.npz"), None)
    assert jobs[2] == jobs[-1] and jobs[2].outputs == (last.mask, Path("looks/item0000002.jpg"))
    assert jobs[2].inputs == last.inputs and [job.name for job in jobs] == jobs.stems
    alone = make(3, Folders(Path("images"), None, Path("out"), None), ".png")
    assert alone[0] == Job(Path("images/item0000000.jpg"), None, Path("out/item0000000.png"), None)


def test_parts():
    jobs = make(5)
    assert list(jobs[1::2]) == [jobs[1], jobs[3]] and list(jobs[4:][1:]) == []
    assert jobs.without(lambda job: job.name.endswith(("0", "3"))).stems == [
        "item0000001",
        "item0000002",
        "item0000004",
    ]
    assert jobs.named(["item0000003", "nobody"]) == {"item0000003": jobs[3]}


def test_another_process_reads_the_same():
    jobs = make(4)
    assert list(pickle.loads(pickle.dumps(jobs))) == list(jobs)
    alone = make(2, Folders(Path("images"), None, Path("out"), None))
    assert list(pickle.loads(pickle.dumps(alone))) == list(alone)


def size_of(root):
    """Bytes of everything that an object holds, each thing once."""
    seen, waiting, size = {id(root)}, [root], 0
    while waiting:
        thing = waiting.pop()
        size += sys.getsizeof(thing)
        for held in gc.get_referents(thing):
            if id(held) not in seen and not isinstance(held, type | ModuleType):
                seen.add(id(held))
                waiting.append(held)
    return size


def test_jobs_are_held_as_names():
    jobs = make(20_000)
    assert size_of(jobs) < 500 * len(jobs)
    assert size_of(list(jobs)) > 2 * size_of(jobs)  # as paths


def test_asking_for_jobs_leaves_nothing():
    jobs = make(20_000)
    tracemalloc.start()
    try:
        assert sum(len(job.inputs) for job in jobs) == 40_000
        assert tracemalloc.get_traced_memory()[0] < 20 * len(jobs)
    finally:
        tracemalloc.stop()


def test_asking_for_jobs_interns_nothing_new(monkeypatch):
    jobs, interned, intern = make(50), [], sys.intern

    def watch(string):
        interned.append((string, intern(string)))
        return interned[-1][1]

    jobs[0]  # the folders
    monkeypatch.setattr(sys, "intern", watch)
    for copy in (jobs, jobs[::2]):
        interned.clear()
        assert len([path for job in copy for path in (*job.inputs, *job.outputs)]) == 4 * len(copy)
        assert interned and all(string is known for string, known in interned)
