"""Starts jobs and kills them at random moments, and counts where the kills landed."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


class Jobs:
    """A process of `kill_jobs.py`.

    Attributes:
        landed: where in the job the kills came, by what they found on the disk.
        at_random, at_writes: how many came at a moment that was drawn, and how many in a write that was.
        log: what the jobs said.
    """

    def __init__(self, process: "subprocess.Popen[str]", log: Path, seed: int):
        self._process, self.log = process, log
        self._random = random.Random(seed)
        self.landed: Counter[str] = Counter()
        self.at_random, self.at_writes = 0, 0

    def __call__(self, job: str, *arguments: object, after: float | None = None, event: int | None = None) -> dict:
        assert self._process.stdin is not None and self._process.stdout is not None
        wish = {
            "job": job,
            "arguments": list(map(str, arguments)),
            "after": after,
            "event": event,
            "log": str(self.log),
        }
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def whole(self, job: str, *arguments: object) -> float:
        """Runs a job to its end, and gives its seconds."""
        done = self(job, *arguments)
        assert done["code"] == 0, self.log.read_text()[-2000:]
        return done["seconds"]

    def killed(self, job: str, *arguments: object, within: float, events: int = 0) -> bool:
        """Whether a job was killed; else it came to its end before.

        Args:
            job, arguments: what to run.
            within: seconds, of which the moment of the kill is drawn.
            events: number of a job's write events; if there are any, each third kill is at one of them.
        """
        if events and self._random.random() < 1 / 3:
            done = self(job, *arguments, event=self._random.randint(1, events))
            self.at_writes += done["killed"]
        else:
            done = self(job, *arguments, after=self._random.uniform(0, within))
            self.at_random += done["killed"]
        assert done["killed"] or done["code"] == 0, self.log.read_text()[-2000:]
        return done["killed"]

    def report(self, what: str) -> None:
        """Prints where the kills landed."""
        print(f"\n{what}: {self.at_random} kills at random moments and {self.at_writes} at random writes survived")
        for place, count in self.landed.most_common():
            print(f"  {count:4d}  {place}")

    def seen(self, path: Path) -> Path:
        """A path as this process sees it, which may have mounted something there."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def said(self) -> list[str]:
        """Lines that the jobs wrote since this was last asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return lines


@contextmanager
def jobs(folder: Path, seed: int = 0, mounts: bool = False) -> Iterator[Jobs]:
    """The process, which ends with the block.

    Args:
        folder: for what the jobs say.
        seed: of the moments.
        mounts: whether it may mount file systems, which no other process sees, as the job "mount".
    """
    if not hasattr(os, "pidfd_open") or not Path("/proc/self/task").is_dir():
        pytest.skip("Linux's process descriptors kill the right process at the right moment")
    command = [sys.executable, str(Path(__file__).with_name("kill_jobs.py"))]
    if mounts:
        alone = ["unshare", "--map-root-user", "--mount"]
        tried = [*alone, "mount", "-t", "tmpfs", "none", str(folder)]
        if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True).returncode:
            pytest.skip("this user may not mount a small file system")
        command = [*alone, *command]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        # A fork of a process with several threads would have the locks that they held.
        assert json.loads(process.stdout.readline())["threads"] == 1
        yield Jobs(process, folder / "jobs.log", seed)
        process.stdin.close()


def temporaries(*folders: Path) -> set[Path]:
    """Files that were being written when their process died."""
    return {path for folder in folders for path in folder.rglob("*") if TEMPORARY.fullmatch(path.name)}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of all files below a folder, but for those of dead processes."""
    left = temporaries(folder)
    return {
        path.relative_to(folder).as_posix(): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in left
    }


def noted(notes: Path, folder: Path) -> dict[str, list[str]]:
    """Name → SHA-256 of every version that `ddps_recorded` saw, the oldest first."""
    found: dict[str, list[str]] = {}
    for line in notes.read_text().splitlines():
        path, version = json.loads(line)
        if Path(path).is_relative_to(folder):
            found.setdefault(Path(path).relative_to(folder).as_posix(), []).append(version)
    return found


def assert_known(folder: Path, known: Mapping[str, list[str]], others: "re.Pattern[str]") -> dict[str, str]:
    """Every file is one of its known versions, whole; those that `others` matches are for the caller to look at."""
    found = digests(folder)
    strange = [
        name for name, version in found.items() if not others.fullmatch(name) and version not in known.get(name, ())
    ]
    assert not strange, strange
    return found
