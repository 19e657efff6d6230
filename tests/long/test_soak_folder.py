"""Tens of thousands of images through `ddps refine`: memory does not grow, and broken items break nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .soak_memory import Course, memory_of, needs_proc

IMAGES, DIFFERENT, SIDE, CLASSES = 20_000, 64, 48, 5
GROWTH = 200.0
"""KiB per 1000 images; one image more held for each would be 54 times as much."""


def make_set(folder: Path, count: int) -> dict[str, str]:
    """Small photos with rough label maps, a few of them broken; stem → what is wrong with it."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(), masks.mkdir()
    rng = np.random.default_rng(0)
    for number in range(min(DIFFERENT, count)):
        across = np.arange(SIDE)
        labels = ((across[:, None] // 13 + across // (9 + number % 7) + number) % CLASSES).astype(np.uint8)
        tints = rng.integers(0, 256, (CLASSES, 3))
        photo = np.clip(tints[np.roll(labels, 2, 1)] + rng.normal(0, 20, (SIDE, SIDE, 3)), 0, 255)
        Image.fromarray(photo.astype(np.uint8)).save(images / f"{number:06}.png")
        Image.fromarray(labels).save(masks / f"{number:06}.png")
    # names of the same files: what is read does not depend on the disk's size
    for number in range(DIFFERENT, count):
        for place in (images, masks):
            os.link(place / f"{number % DIFFERENT:06}.png", place / f"{number:06}.png")
    middle = count // 2
    broken = {}
    for offset, (place, content) in enumerate(
        (
            (images, b""),
            (images, b"no picture"),
            (masks, (masks / "000000.png").read_bytes()[:60]),
            (images, (images / "000000.png").read_bytes()[:-700]),
            (masks, b"\0" * 1000),
        )
    ):
        path = place / f"{middle + 7 * offset:06}.png"
        path.unlink()
        path.write_bytes(content)
        broken[path.stem] = path.name
    return broken


def soak(folder: Path, count: int) -> tuple[Course, dict[str, object], set[str], float]:
    """Refines `count` images in one process of its own, which is watched from outside."""
    broken = make_set(folder, count)
    command = [sys.executable, "-m", "ddps", "refine", folder / "images", folder / "masks", "-o", folder / "out"]
    command += ["--preset", "fast", "--device", "cpu", "--json"]
    course, started = Course(count), time.perf_counter()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            list(map(str, command)), stdout=out, stderr=err, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        rows, seen = None, 0
        while process.poll() is None:
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                found = sorted((folder / "out").glob("summary*.jsonl")) if rows is None else []
                rows = found[0].open("rb") if found else rows
                seen += 0 if rows is None else rows.read().count(b"\n")
                # once all are done the rows of the whole folder are put together
                if seen < count - len(broken):
                    course.add(seen, memory_of(process.pid))
        seconds = time.perf_counter() - started
    assert process.returncode == 1, (folder / "stderr").read_text()[-2000:]
    return course, json.loads((folder / "stdout").read_text()), set(broken), seconds


@pytest.mark.long
def test_twenty_thousand_images(tmp_path, request):
    needs_proc()
    course, report, broken, seconds = soak(tmp_path, IMAGES)
    print(f"\nfolder: {IMAGES} images in {seconds:.0f} s, {len(broken)} broken; {course}")
    said = (tmp_path / "stderr").read_text()
    errors = [line for line in said.replace("\r", "\n").splitlines() if "error" in line]
    assert {item["name"] for item in report["failed"]} == broken
    assert len(errors) == len(broken) and all(line.startswith("ddps: error: expected ") for line in errors)
    assert all(any(stem in line for line in errors) for stem in broken) and "Traceback" not in said
    assert report["refined"] == IMAGES - len(broken)
    refined = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert len(refined) == IMAGES - len(broken) and not refined & broken
    # the same files under another name have the same answer, at the beginning and at the end
    last = IMAGES - 1
    first = last % DIFFERENT
    assert (tmp_path / f"out/{last:06}.png").read_bytes() == (tmp_path / f"out/{first:06}.png").read_bytes()
    assert course.slope() < GROWTH
