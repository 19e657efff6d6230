"""Thousands of requests to a real `ddps app` from eight clients at once, and more than its queue takes."""

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .page_visitor import PATIENCE, Busy, Visitor
from .soak_memory import Course, memory_of, needs_proc

WARM_UP, REQUESTS, CLIENTS, DIFFERENT, SIDE = 2_000, 2_000, 8, 16, 48
"""Requests, each of another visitor; Gradio remembers the last 2,000 visitors, and has settled when it forgets some."""
CROWD, QUEUE = 40, 16
GROWTH = 5_000.0
"""KiB per 1000 requests after the warm-up; kept answers make 150,000."""


@contextmanager
def page(folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process of `ddps app`."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    command = [sys.executable, "-u", "-m", "ddps", "app", "--device", "cpu"]
    with (folder / "stderr").open("wb") as err:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=environment)
        try:
            assert server.stdout is not None
            said = re.search(r"http://\S+", server.stdout.readline())
            assert said is not None, (folder / "stderr").read_text()[-2000:]
            yield said[0], server.pid
        finally:
            server.terminate()
            server.wait(timeout=PATIENCE)


def uploads() -> list[tuple[bytes, bytes]]:
    """Small photos and their label maps, as PNG."""
    rng, files = np.random.default_rng(0), []
    for number in range(DIFFERENT):
        across = np.arange(SIDE)
        labels = ((across[:, None] // 13 + across // (9 + number % 7) + number) % 4).astype(np.uint8)
        tints = rng.integers(0, 256, (4, 3))
        photo = np.clip(tints[np.roll(labels, 2, 1)] + rng.normal(0, 20, (SIDE, SIDE, 3)), 0, 255)
        both = io.BytesIO(), io.BytesIO()
        Image.fromarray(photo.astype(np.uint8)).save(both[0], "PNG")
        Image.fromarray(labels).save(both[1], "PNG")
        files.append((both[0].getvalue(), both[1].getvalue()))
    return files


def load(address: str, process: int, requests: int) -> tuple[Course, list[str], dict[int, set[bytes]]]:
    """`requests` from all clients: memory on the way, what failed, and the masks of every upload."""
    files, course = uploads(), Course(requests, WARM_UP / requests)
    failed: list[str] = []
    masks: dict[int, set[bytes]] = {number: set() for number in range(DIFFERENT)}
    numbers, lock = iter(range(requests)), threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                answer = Visitor(address).refine(*files[number % DIFFERENT])
                problem = None if answer.fine else answer.text[-500:]
            except (Busy, OSError, AssertionError) as error:
                answer, problem = None, repr(error)
            with lock:
                if problem is not None:
                    failed.append(problem)
                elif answer is not None and answer.mask is not None:
                    masks[number % DIFFERENT].add(answer.mask)
                if number % 10 == 0:
                    course.add(number, memory_of(process))

    with ThreadPoolExecutor(CLIENTS) as pool:
        for future in [pool.submit(client) for _ in range(CLIENTS)]:
            future.result()
    return course, failed, masks


def crowd(address: str) -> tuple[int, list[str]]:
    """More visitors at once than the queue takes: how many got an answer, and what the others were told."""
    photo, labels = uploads()[0]
    visitors = [Visitor(address) for _ in range(CROWD)]
    gate = threading.Barrier(CROWD)

    def come(visitor: Visitor) -> str | None:
        gate.wait()
        try:
            answer = visitor.refine(photo, labels)
        except Busy as busy:
            return str(busy)
        assert answer.fine, answer.text[-500:]
        return None

    with ThreadPoolExecutor(CROWD) as pool:
        told = list(pool.map(come, visitors))
    return told.count(None), [line for line in told if line is not None]


@pytest.mark.long
def test_thousands_of_requests(tmp_path):
    pytest.importorskip("gradio", reason="serves the page: pip install '.[app]'")
    needs_proc()
    with page(tmp_path) as (address, process):
        started = time.perf_counter()
        course, failed, masks = load(address, process, WARM_UP + REQUESTS)
        seconds = time.perf_counter() - started
        print(
            f"\npage: {WARM_UP} + {REQUESTS} requests of {CLIENTS} clients in {seconds:.0f} s, {len(failed)} failed; ",
            end="",
        )
        print(course)
        assert failed == []
        # whoever asked, and whoever else did
        assert all(len(found) == 1 for found in masks.values())
        served, told = crowd(address)
        print(f"page: of {CROWD} at once {served} were served, {len(told)} told: {told[:1]}")
        assert served >= QUEUE and served + len(told) == CROWD and told
        assert all(line.startswith("Queue is full.") for line in told)
        assert Visitor(address).refine(*uploads()[0]).fine  # there is room again
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert course.slope() < GROWTH
