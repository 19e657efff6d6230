"""`ddps refine` over a folder, killed at random moments again and again, and resumed: the masks of a whole run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import make_tiny_refiner
from .kill_runner import Jobs, assert_known, digests, jobs, temporaries

KILLS, KILLS_OF_A_RUN, ITEMS = 70, 8, 12
HEIGHT, WIDTH = 72, 96
# figures of this run, and its times
OWN = re.compile(r"masks/summary\.jsonl?|masks/review\.html")


def folders(root: Path) -> tuple[Path, Path]:
    """Images, and label maps of three classes with rough outlines."""
    images, labels = root / "images", root / "labels"
    rng = np.random.default_rng(0)
    for folder in (images, labels):
        folder.mkdir()
    for number in range(ITEMS):
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        top, left = rng.integers(4, 30, 2)
        mask[top : top + 30, left : left + 40] = 1
        mask[40:, 60:] = 2
        image = (60 + 60 * mask[..., None] + rng.normal(0, 9, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(images / f"{number:02}.png")
        Image.fromarray(mask).save(labels / f"{number:02}.png")
    return images, labels


def rows(out: Path) -> dict[str, dict]:
    """Name → the last row of an item, without its time; the last line may have been cut short."""
    lines = (out / "masks" / "summary.jsonl").read_bytes().split(b"\n")[:-1]
    found = [json.loads(line) for line in lines]
    return {row["name"]: {key: value for key, value in row.items() if key != "seconds"} for row in found}


@pytest.mark.long
def test_kills_of_folder_refine(tmp_path):
    model = make_tiny_refiner().save_pretrained(tmp_path / "model")
    start = ["refine", *folders(tmp_path), "--model", model, "--device", "cpu", "--workers", 2, "--review", 0]
    with jobs(tmp_path, seed=3) as run:
        whole = tmp_path / "whole"
        seconds = run.whole("ddps", *arguments(start, whole))
        known = {name: [version] for name, version in digests(whole).items()}
        assert len([name for name in known if re.fullmatch(r"masks/\d\d\.png", name)]) == ITEMS
        runs = 0
        while run.at_random < KILLS:
            out = tmp_path / f"killed{runs}"
            runs += 1
            killed_then_resumed(run, [*arguments(start, out), "--resume"], out, known, seconds)
            assert_same_folder(out, whole)
        run.report(f"ddps refine, {runs} runs of {ITEMS} items ({seconds:.1f} s each)")


def arguments(start: list, out: Path) -> list:
    return [*start, "-o", out / "masks", "--overlay", out / "overlays"]


def killed_then_resumed(run: Jobs, command: list, out: Path, known: dict, seconds: float) -> None:
    """Kills a run until it comes to its end, or has been killed often enough and is left to it."""
    left: set[Path] = set()
    for _ in range(KILLS_OF_A_RUN):
        if not run.killed("ddps", *command, within=0.8 * seconds, events=4 * len(known)):
            return
        found, now = assert_known(out, known, OWN), temporaries(out)
        done = {Path(name).stem for name in found if re.fullmatch(r"masks/\d\d\.png", name)}
        run.landed[place_of(out, done, now - left)] += 1
        left = now
        if "masks/summary.jsonl" in found:
            assert done <= rows(out).keys()  # where a mask is, there is its row
        else:
            assert not done
        if "masks/summary.json" in found:
            json.loads((out / "masks" / "summary.json").read_text())
        if "masks/review.html" in found:
            assert (out / "masks" / "review.html").read_text().endswith("</html>\n")
    run.whole("ddps", *command)


def place_of(out: Path, done: set[str], written: set[Path]) -> str:
    if written:
        kinds = {f"{path.parent.name}/*{path.name[1:-17][-4:]}" for path in written}
        return f"while {' and '.join(sorted(kinds))} were written"
    if not out.exists():
        return "before the first folder"
    if not done:
        return "before the first mask"
    return "between writes" if len(done) < ITEMS else "after the last mask"


def assert_same_folder(out: Path, whole: Path) -> None:
    """Masks, overlays, the review's pictures and the rows; nothing of the kills is left."""
    one, other = ({k: v for k, v in digests(path).items() if not OWN.fullmatch(k)} for path in (out, whole))
    assert one == other and rows(out) == rows(whole)
    summary, expected = (json.loads((path / "masks" / "summary.json").read_text()) for path in (out, whole))
    assert summary["refined"] + summary["skipped"] == ITEMS and summary["without_row"] == 0
    assert (summary["failed"], summary["stopped"]) == ([], None)
    assert summary["changed"] == expected["changed"] and summary["uncertainty"] == expected["uncertainty"]
    assert temporaries(out) == set()
