import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def mask(tmp_path):
    values = np.zeros((40, 56), dtype=np.uint8)
    values[8:30, 10:40], values[:2] = 1, 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_one_picture(run, tmp_path, tiny_model_dir, mask):
    outcome = run(
        "prior", tiny_model_dir, "-o", tmp_path / "out.png", "--mask", mask, "--steps", 2, "--samples", 1, "--json"
    )
    assert outcome.code == 0
    assert outcome.json["picture"] == str(tmp_path / "out.png") and len(outcome.json["restored"]) == 4
    assert all(0 <= row["restored_percent"] <= 100 for row in outcome.json["restored"])
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 800
    again = ("prior", tiny_model_dir, "-o", tmp_path / "out.png", "--steps", 2)
    assert run(*again).is_bad_input()
    assert run(*again, "--overwrite").out.strip() == str(tmp_path / "out.png")


@pytest.mark.parametrize(
    "wrong",
    ["-o out.gif", "-o none/out.png", "--samples 0", "--noise 0.5 2", "--seed -1", "--steps 21", "--mask none.png",
     "--class-names none.json"],
)  # fmt: skip
def test_bad_calls(run, tmp_path, tiny_model_dir, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    out = () if "-o" in wrong else ("-o", "out.png")
    assert run("prior", tiny_model_dir, *out, *wrong.split()).is_bad_input()
    assert not list(tmp_path.glob("*.png"))


def test_masks_that_are_none(run, tmp_path, tiny_model_dir):
    np.save(tmp_path / "logits.npy", np.zeros((3, 20, 20), dtype=np.float32))
    np.save(tmp_path / "negative.npy", np.full((20, 20), -7))
    for name in ("logits", "negative"):
        bad = run("prior", tiny_model_dir, "-o", tmp_path / "out.png", "--mask", tmp_path / f"{name}.npy")
        assert bad.is_bad_input() and not (tmp_path / "out.png").exists()
