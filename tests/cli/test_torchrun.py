"""`ddps evaluate` and `ddps refine` in two processes give what one gives, and outlive the death of one of them."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from ddps.cli import refine_folder
from ddps.processes import Group

from ..torchrun import torchrun
from .conftest import STEMS


@pytest.fixture
def many(data_set):
    """Five images with masks and predictions."""
    for number, stem in enumerate(("d", "e")):
        for folder, suffix in ((data_set.images, "png"), (data_set.masks, "png"), (data_set.predictions, "npz")):
            shutil.copy(folder / f"{STEMS[number]}.{suffix}", folder / f"{stem}.{suffix}")
    return data_set


def without_times(value: object) -> object:
    """A report without what depends on the clock or on where it was written."""
    if isinstance(value, dict):
        left_out = ("seconds", "seconds_per_image", "output")
        return {key: without_times(entry) for key, entry in value.items() if key not in left_out}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.processes
def test_evaluation_of_two_is_that_of_one(run, many, tmp_path, tiny_model_dir):
    arguments = ["evaluate", "--images", many.images, "--masks", many.masks, "--predictions", many.predictions]
    arguments += ["--model", tiny_model_dir, "--steps", "1,2", "--json"]
    done = torchrun(*arguments, "--per-image", tmp_path / "two.json")
    assert done.returncode == 0, done.stderr
    alone = run(*arguments, "--per-image", tmp_path / "one.json").json
    # to the last bit: the counts are whole numbers
    assert without_times(json.loads(done.stdout)) == without_times(alone) and alone["images"] == 5
    two, one = (json.loads((tmp_path / name).read_text())["images"] for name in ("two.json", "one.json"))
    assert [row["stem"] for row in two] == ["a", "b", "c", "d", "e"] and without_times(two) == without_times(one)


DIES = """
import os, signal, sys
from ddps.cli import refine_folder
from ddps.cli.main import main

save = refine_folder.save

def save_and_die(*arguments):
    save(*arguments)
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

refine_folder.save = save_and_die
sys.exit(main())
"""


def labels(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.processes
def test_refining_goes_on_after_the_death_of_one(run, many, tmp_path, tiny_model_dir):
    (many.predictions / "d.npz").write_bytes(b"damaged")  # the second process's second item
    (tmp_path / "dies.py").write_text(DIES)
    out, alone, later = (tmp_path / name for name in ("out", "alone", "later"))
    arguments = ["refine", many.images, many.predictions, "--model", tiny_model_dir, "--workers", 1, "--json", "-o"]

    killed = torchrun(*arguments, out, script=tmp_path / "dies.py")
    assert killed.returncode != 0
    assert (out / "b.png").exists() and not (out / "summary.json").exists()
    assert json.loads((out / "summary.part1.jsonl").read_text())["name"] == "b"
    shutil.copytree(out, later)
    refused = run(*arguments, later)
    assert refused.is_bad_input() and "--resume" in refused.err

    single = run(*arguments, alone)
    assert single.code == 1 and [row["name"] for row in single.json["failed"]] == ["d"]
    resumed = torchrun(*arguments, out, "--resume")
    assert resumed.returncode != 0 and resumed.stderr.count("expected d.npz:") == 1
    report = json.loads(resumed.stdout)
    assert report["skipped"] >= 1 and report["refined"] + report["skipped"] == 4
    assert labels(out) == labels(alone) and set(labels(out)) == {"a.png", "b.png", "c.png", "e.png"}
    for name in ("changed", "uncertainty", "failed", "without_row", "stopped", "without_prediction"):
        assert report[name] == single.json[name]
    assert json.loads((out / "summary.json").read_text()) == report
    names = [json.loads(line)["name"] for line in (out / "summary.jsonl").read_text().splitlines()]
    assert set(names) == {"a", "b", "c", "e"} and not list(out.glob("summary.part*"))

    # what two began, one can end
    one = run(*arguments, later, "--resume").json
    assert one["skipped"] == report["skipped"] and one["changed"] == report["changed"]
    assert labels(later) == labels(alone) and not list(later.glob("summary.part*"))


@pytest.mark.processes
def test_bad_input_is_said_once(many, tmp_path, tiny_model_dir):
    done = torchrun("refine", many.images, tmp_path / "none", "--model", tiny_model_dir, "-o", tmp_path / "out")
    assert done.returncode != 0 and done.stderr.count("ddps: error:") == 1 and done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_frames_are_for_one_process(run, many, tmp_path, monkeypatch, tiny_model_dir):
    monkeypatch.setattr(refine_folder, "processes", lambda: nullcontext(Group(0, 2)))
    outcome = run("refine", many.images, many.predictions, "--video", "--model", tiny_model_dir, "-o", tmp_path / "out")
    assert outcome.is_bad_input() and "--video" in outcome.err
