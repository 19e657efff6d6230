"""The example for Ray clusters, on a Ray of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner, Refinement

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.processes


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "predictions"):
        (tmp_path / name).mkdir()
    for stem in "abc":
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{stem}.png")
        logits = rng.normal(size=(3, 10, 14)).astype(np.float32)
        np.savez(tmp_path / "predictions" / f"{stem}.npz", logits=logits)
    return tmp_path


def run(folders: Path, model: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "examples" / "ray_refine.py", folders / "images", folders / "predictions"]
    command += ["-o", folders / "masks", "--model", model, "--workers", "1"]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    quiet["RAY_raylet_start_wait_time_s"] = "120"  # a busy machine takes long
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=500, env={**os.environ, **quiet}
    )


def test_a_folder_on_a_ray_of_this_machine(folders, tiny_model_dir):
    pytest.importorskip("ray.data", reason="the example is for Ray: pip install 'ray[data]'")
    (folders / "predictions" / "b.npz").write_bytes(b"damaged")
    done = run(folders, tiny_model_dir)
    assert done.returncode == 1, done.stderr
    assert "refined 2, skipped 0 that existed, failed 1" in done.stdout
    assert any(line.startswith("b: expected ") for line in done.stderr.splitlines())
    assert sorted(path.name for path in (folders / "masks").iterdir()) == ["a.png", "c.png"]
    refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
    for stem in "ac":
        files = folders / "images" / f"{stem}.png", folders / "predictions" / f"{stem}.npz"
        wanted = refiner.refine(*files)
        assert isinstance(wanted, Refinement)
        with Image.open(folders / "masks" / f"{stem}.png") as mask:
            assert np.array_equal(np.asarray(mask), np.asarray(wanted.labels))


def test_what_is_done_is_skipped(folders, tiny_model_dir):
    pytest.importorskip("ray", reason="the example is for Ray: pip install 'ray[data]'")
    (folders / "masks").mkdir()
    for stem in "abc":
        (folders / "masks" / f"{stem}.png").write_bytes(b"mine")
    done = run(folders, tiny_model_dir)
    assert done.returncode == 0 and "refined 0, skipped 3 that existed, failed 0" in done.stdout
    assert (folders / "masks" / "a.png").read_bytes() == b"mine"
