"""`ddps refine` when memory runs out: the item is tried again, told of, and the rest goes on."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddps.cli import refine_folder
from ddps.models.slot_unet import SlotUNet
from ddps.out_of_memory import SmallerTilesWarning

from .conftest import STEMS

pytestmark = pytest.mark.filterwarnings(f"always::{SmallerTilesWarning.__module__}.{SmallerTilesWarning.__name__}")
FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def large_b(data_set):
    """Item b is larger than the smallest tiles are, and than the model's own."""
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (180, 200, 3), dtype=np.uint8)).save(data_set.images / "b.png")
    return data_set


@pytest.fixture
def short(monkeypatch):
    """Lets the network fail above so many pixels, so many times."""

    def run_short(pixels: int, times: int = 10**9) -> list[int]:
        denoise, failed = SlotUNet.denoise, []

        def denoise_or_fail(self, mask, i, condition):
            if 4 * mask.shape[-2] * mask.shape[-1] > pixels and len(failed) < times:
                failed.append(1)
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return denoise(self, mask, i, condition)

        monkeypatch.setattr(SlotUNet, "denoise", denoise_or_fail)
        return failed

    return run_short


def masks(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_an_item_in_smaller_tiles_is_told_of(refine, large_b, tmp_path, short):
    expected = {}
    for tile in (128, 256):
        out = tmp_path / str(tile)
        assert refine(large_b.images, large_b.predictions, "-o", out, "--tile", tile, "--json").json["failed"] == []
        expected[tile] = masks(out)
    assert expected[128]["b.png"] != expected[256]["b.png"]
    short(128 * 128)
    outcome = refine(large_b.images, large_b.predictions, "-o", tmp_path / "out", "--tile", 256, "--json")
    assert outcome.code == 0 and outcome.json["smaller_tiles"] == 1 and outcome.json["refined"] == 3
    assert masks(tmp_path / "out") == expected[256] | {"b.png": expected[128]["b.png"]}
    lines = outcome.err.splitlines()
    assert lines == ["ddps: warning: memory ran out with tiles of 200 pixels: refined in tiles of 128"]
    told = refine(large_b.images, large_b.predictions, "-o", tmp_path / "o", "--tile", 256).out
    assert "refined 3, 1 of them in smaller tiles, as memory ran out" in told


def test_an_item_that_does_not_fit_is_skipped_and_the_rest_goes_on(refine, large_b, tmp_path, short):
    assert refine(large_b.images, large_b.predictions, "-o", tmp_path / "all").code == 0
    failed = short(100 * 100)
    outcome = refine(large_b.images, large_b.predictions, "-o", tmp_path / "out", "--json")
    assert outcome.code == 1 and outcome.json["refined"] == 2 and outcome.err.count("\n") == 1
    [item] = outcome.json["failed"]
    assert item["name"] == "b" and item["error"].startswith("expected b.npz: memory for 200 x 180 pixels of 3 classes")
    assert len(failed) == 2  # once among the others, once alone
    left = masks(tmp_path / "all")
    del left["b.png"]
    assert masks(tmp_path / "out") == left


def test_what_fits_alone_is_refined_at_the_end(refine, data_set, tmp_path, short):
    assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "all").code == 0
    failed = short(0, times=1)
    outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json")
    assert outcome.code == 0 and outcome.err == "" and failed == [1]
    assert outcome.json["refined"] == 3 and outcome.json["smaller_tiles"] == 0
    assert masks(tmp_path / "out") == masks(tmp_path / "all")
    names = [line.split('"name": "')[1][0] for line in (tmp_path / "out/summary.jsonl").read_text().splitlines()]
    assert sorted(names) == list(STEMS)


@pytest.mark.parametrize("stage", ["load", "measure_item", "save"])
@pytest.mark.parametrize("error", [FULL, MemoryError()], ids=["torch", "Python"])
def test_any_stage_may_run_out(refine, data_set, tmp_path, monkeypatch, stage, error):
    whole = getattr(refine_folder, stage)

    def short(job, *arguments, **options):
        if job.name == "b":
            raise error
        return whole(job, *arguments, **options)

    monkeypatch.setattr(refine_folder, stage, short)
    outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json")
    assert outcome.code == 1 and [item["name"] for item in outcome.json["failed"]] == ["b"]
    assert "b.npz: memory for the item" in outcome.err and outcome.err.count("\n") == 1
    assert {"a.png", "c.png"} == set(masks(tmp_path / "out"))


def test_frames_do_not_wait_for_the_end(refine, large_b, tmp_path, short):
    """What comes after them depends on them."""
    failed = short(100 * 100)
    outcome = refine(large_b.images, large_b.predictions, "-o", tmp_path / "out", "--video", "--json")
    assert outcome.code == 1 and len(failed) == 1 and outcome.json["refined"] == 2


def test_one_image(refine, large_b, tmp_path, short):
    short(128 * 128)
    pair = large_b.images / "b.png", large_b.predictions / "b.npy"
    np.save(pair[1], np.load(large_b.predictions / "b.npz")["logits"])
    outcome = refine(*pair, "-o", tmp_path / "b.png", "--tile", 256)
    assert outcome.code == 0 and outcome.err.startswith("ddps: warning: memory ran out with tiles of 200 pixels")
    outcome = refine(*pair, "-o", tmp_path / "b.npy", "--tile", 192, "--json")
    assert outcome.code == 0 and outcome.json["tile"] == 128 and outcome.err.count("ddps: warning: ") == 1


def test_one_image_that_does_not_fit(refine, large_b, tmp_path, short):
    short(0)
    pair = large_b.images / "b.png", large_b.predictions / "b.npy"
    np.save(pair[1], np.load(large_b.predictions / "b.npz")["logits"])
    for name in ("b.png", "b.npy"):
        outcome = refine(*pair, "-o", tmp_path / name)
        assert outcome.is_bad_input() and "in tiles of 128; got CUDA out of memory" in outcome.err
        assert not (tmp_path / name).exists()


def test_whatever_else_runs_out_is_one_line(run, data_set, monkeypatch, tiny_model_dir):
    def short(*_):
        raise FULL

    monkeypatch.setattr("ddps.cli.evaluate.run", short)
    outcome = run("evaluate", "--images", data_set.images, "--masks", data_set.masks)
    assert outcome.is_bad_input() and "expected memory for this command" in outcome.err

    def broken(*_):
        raise RuntimeError("another")

    monkeypatch.setattr("ddps.cli.evaluate.run", broken)
    with pytest.raises(RuntimeError, match="^another$"):
        run("evaluate", "--images", data_set.images, "--masks", data_set.masks)
