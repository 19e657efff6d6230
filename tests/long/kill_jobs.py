"""A process that has ddps in memory and forks a child for every job, which it may kill: run as a script.

Importing torch takes longer than the jobs. A child is a process of its own, and dies of SIGKILL as any other.

Every line of stdin is one job as JSON: "job", "arguments", "after", "event", "log". It is killed `after` so many
seconds, or at this `event` of its writes: before a file holds anything, before it is synced, before it gets its name,
and after that. Every answer is one line: whether it was killed, its exit code, and how many seconds it ran.
"""

import hashlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch

from ddps import DDPSRefiner, atomic
from ddps.cli import refine, train
from ddps.cli.main import main

PRELOADED = (refine, train)
REFINERS: list[DDPSRefiner] = []


def ddps(arguments: list[str]) -> int:
    """Runs the command line."""
    return main(arguments)


def ddps_recorded(arguments: list[str]) -> int:
    """Runs the command line, and notes the SHA-256 of every file that gets its name, one a line."""
    notes, *rest = arguments
    publish = atomic._publish

    def noting(temporary: str, target: Path, overwrite: bool) -> None:
        digest = hashlib.sha256(Path(temporary).read_bytes()).hexdigest()
        with open(notes, "a") as file:
            file.write(json.dumps([str(target), digest]) + "\n")
        publish(temporary, target, overwrite)

    atomic._publish = noting
    return main(rest)


def save(arguments: list[str]) -> int:
    """Saves one model after the other into one folder, until it is killed."""
    while True:
        for refiner in REFINERS:
            refiner.save_pretrained(arguments[0])


def load(arguments: list[str]) -> int:
    """Loads what `save` saves; this is no child's job."""
    REFINERS.extend(DDPSRefiner.from_pretrained(model, device="cpu") for model in arguments)
    return len(REFINERS)


def mount(arguments: list[str]) -> int:
    """Changes a file system that this process has mounted for itself."""
    return subprocess.run(["mount", *arguments], check=True).returncode


JOBS: dict[str, Callable[[list[str]], int]] = {
    "ddps": ddps,
    "ddps_recorded": ddps_recorded,
    "save": save,
    "mount": mount,
}


def die_at(event: int) -> None:
    """Lets this process kill itself at an event of its writes."""
    create, publish, sync, count = atomic._create, atomic._publish, os.fsync, itertools.count(1)

    def happen() -> None:
        if next(count) == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def created(target: Path) -> tuple[Path, BinaryIO]:
        made = create(target)
        happen()
        return made

    def synced(descriptor: int) -> None:
        happen()
        sync(descriptor)

    def published(temporary: Path, target: Path, overwrite: bool) -> None:
        happen()
        publish(temporary, target, overwrite)
        happen()

    atomic._create, atomic._publish, os.fsync = created, published, synced


def run(job: str, arguments: list[str], after: float | None, event: int | None, log: str) -> dict[str, object]:
    """Runs a job in a child."""
    start, child = time.monotonic(), os.fork()
    if child == 0:
        code = 70
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if event is not None:
                die_at(event)
            code = JOBS[job](arguments)
            sys.stdout.flush()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    # readable once the child is dead
    ended = os.pidfd_open(child)
    alive = not select.select([ended], [], [], after)[0]
    if alive:
        os.kill(child, signal.SIGKILL)
    os.close(ended)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    code = None if killed else os.waitstatus_to_exitcode(status)
    return {"killed": killed, "code": code, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    torch.set_num_threads(1)
    threads = len(os.listdir("/proc/self/task"))
    print(json.dumps({"threads": threads, "preloaded": len(PRELOADED)}), flush=True)
    for line in sys.stdin:
        wish = json.loads(line)
        done = {"code": 0, "loaded": load(wish["arguments"])} if wish["job"] == "load" else run(**wish)
        print(json.dumps(done), flush=True)
