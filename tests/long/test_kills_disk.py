"""A real disk that is full, or may not be written to: one line says so, and nothing is lost."""

import re
from pathlib import Path

import pytest

from ddps import DDPSRefiner

from ..conftest import make_tiny_refiner
from . import test_kills_refine as refining
from . import test_kills_train as training
from .kill_runner import Jobs, assert_known, digests, jobs, temporaries

# shares of what a whole run needs
SHARES, SHARES_TRAINING = (0.02, 0.15, 0.3, 0.5, 0.75, 0.95), (0.3, 0.75, 0.95)
PAGE = 4096


def need(folder: Path) -> int:
    """Bytes that a folder's files take on a file system that counts in pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def disk_of(run: Jobs, folder: Path, size: int) -> Path:
    """A folder with a file system of so many bytes, which the jobs see."""
    folder.mkdir()
    run.whole("mount", "-t", "tmpfs", "-o", f"size={max(PAGE, size)}", "none", folder)
    return folder


def error_of(run: Jobs) -> str:
    """The one line about what went wrong since this was last asked."""
    lines = run.said()
    errors = [line for line in lines if "rror" in line or "Traceback" in line]
    assert len(errors) == 1 and errors[0].startswith("ddps: error: "), lines
    return errors[0]


@pytest.mark.long
def test_a_full_disk_while_training(tmp_path):
    arguments, whole = training.command(tmp_path), tmp_path / "whole"
    with jobs(tmp_path, mounts=True) as run:
        known = training.recorded(run, arguments, whole)
        for share in SHARES_TRAINING:
            disk = disk_of(run, tmp_path / f"disk{share}", int(share * need(whole)))
            folder = disk / "run"
            known["train.json"] = [training.settings_of(whole, folder)]
            run.said()
            assert run("ddps", *arguments, "--out", folder)["code"] == 2
            assert "No space left on device" in error_of(run)
            found = assert_known(run.seen(folder), known, training.OWN)
            assert temporaries(run.seen(folder)) == set()
            print(f"\n{share:.0%} of the space: stopped with {len(found)} files")
            run.whole("mount", "-o", "remount,size=16m", disk)
            run.whole("ddps", *arguments, "--out", folder)
            training.assert_same_run(run.seen(folder), whole)


@pytest.mark.long
def test_a_full_disk_while_refining(tmp_path):
    model, whole = make_tiny_refiner().save_pretrained(tmp_path / "model"), tmp_path / "whole"
    start = ["refine", *refining.folders(tmp_path), "--model", model, "--device", "cpu", "--workers", 1, "--review", 0]
    with jobs(tmp_path, mounts=True) as run:
        run.whole("ddps", *refining.arguments(start, whole))
        known = {name: [version] for name, version in digests(whole).items()}
        for share in SHARES:
            disk = disk_of(run, tmp_path / f"disk{share}", int(share * need(whole)))
            out = disk / "out"
            run.said()
            code = run("ddps", *refining.arguments(start, out))["code"]
            said = error_of(run)
            found = assert_known(run.seen(out), known, refining.OWN)
            done = [name for name in found if re.fullmatch(r"masks/\d\d\.png", name)]
            assert code == (1 if done else 2) and "No space left on device" in said and "--resume" in said
            print(f"\n{share:.0%} of the space: stopped with {len(done)} of {refining.ITEMS} masks, {len(found)} files")
            assert temporaries(run.seen(out)) == set()
            run.whole("mount", "-o", "remount,size=16m", disk)
            run.whole("ddps", *refining.arguments(start, out), "--resume")
            refining.assert_same_folder(run.seen(out), whole)


@pytest.mark.long
def test_a_disk_that_may_not_be_written_to(tmp_path):
    model = make_tiny_refiner().save_pretrained(tmp_path / "model")
    images, labels = refining.folders(tmp_path)
    with jobs(tmp_path, mounts=True) as run:
        disk = disk_of(run, tmp_path / "disk", 2**24)
        refine = ["refine", images, labels, "--model", model, "--device", "cpu", "-o"]
        one = ["refine", images / "00.png", labels / "00.png", "--model", model, "-o"]
        train = training.command(tmp_path)
        run.whole("ddps", *refine, disk / "masks")
        run.whole("ddps", *train, "--out", disk / "run")
        (run.seen(disk) / "run" / "state.safetensors").unlink()  # so that there is something to do
        run.whole("mount", "-o", "remount,ro", disk)
        before = digests(run.seen(disk))
        for arguments in (
            [*refine, disk / "masks", "--overwrite"],
            [*refine, disk / "others"],
            [*one, disk / "one.png"],
            [*train, "--out", disk / "run"],
            [*train, "--out", disk / "another"],
            ["export", model, "-o", disk / "model.pt2"],
        ):
            run.said()
            assert run("ddps", *arguments)["code"] == 2, arguments
            assert "Read-only file system" in error_of(run)
            assert digests(run.seen(disk)) == before
        run.whole("mount", "-o", "remount,rw", disk)
        run.whole("ddps", *train, "--out", disk / "run")
        DDPSRefiner.from_pretrained(run.seen(disk) / "run" / "best", device="cpu")
