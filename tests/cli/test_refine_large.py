"""`ddps refine` of large images: options reach `refine_large`, and the report says what became of it."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from ddps.cli.main import main
from ddps.cli.options import add_refine_options
from ddps.cli.refine_large import add_large_options, is_large, run_large
from ddps.errors import InputError


def parse(*arguments: object) -> argparse.Namespace:
    """The arguments of `ddps refine` that matter here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("prediction", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path)
    add_refine_options(parser)
    parser.add_argument("--ignore-index", type=int, default=255)
    parser.add_argument("--overlay", type=Path)
    for flag in ("--resume", "--overwrite", "--json"):
        parser.add_argument(flag, action="store_true")
    add_large_options(parser)
    return parser.parse_args(list(map(str, arguments)))


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "image.npy", rng.integers(0, 256, (90, 110, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", rng.integers(0, 3, (90, 110)).astype(np.uint8))
    return tmp_path


def call(files: Path, model: Path, *options: object) -> argparse.Namespace:
    arguments = ("--model", model, "--device", "cpu", "--steps", 1, "--tile", 64, *options)
    return parse(files / "image.npy", files / "labels.npy", "-o", files / "out.npy", *arguments)


def test_one_json_object(files, tiny_model_dir, capsys):
    args = call(files, tiny_model_dir, "--json", "--changed", files / "changed.npy", "--confident", 0.9)
    assert is_large(args) and run_large(args) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["size"] == [90, 110] and report["refined"] == 1 and report["output"] == str(files / "out.npy")
    changed = np.load(files / "changed.npy")
    assert report["changed"] == pytest.approx(100 * (changed == 255).mean()) and report["changed"] > 0
    assert np.load(files / "out.npy").shape == (90, 110)


def test_text_and_resume(files, tiny_model_dir, capsys):
    assert run_large(call(files, tiny_model_dir)) == 0
    out = capsys.readouterr().out
    assert out.startswith("refined 110 x 90 pixels; ") and out.rstrip().endswith(str(files / "out.npy"))
    with pytest.raises(InputError, match="does not exist yet.*--overwrite"):
        run_large(call(files, tiny_model_dir))
    assert run_large(call(files, tiny_model_dir, "--resume")) == 0
    assert capsys.readouterr().out.startswith("skipped")
    assert run_large(call(files, tiny_model_dir, "--overwrite")) == 0


def test_options_that_do_not_fit(files, tiny_model_dir):
    with pytest.raises(InputError, match="no --overlay"):
        run_large(call(files, tiny_model_dir, "--overlay", files / "over.png"))
    with pytest.raises(InputError, match="PREDICTION as one file .*got none"):
        run_large(parse(files / "image.npy", "-o", files / "out.npy"))
    with pytest.raises(InputError, match="IMAGE as one file .*got the folder"):
        run_large(parse(files, files, "-o", files / "out.npy"))


@pytest.mark.parametrize("name", ["out.png", "out.npz", "folder"])
def test_other_outputs_are_not_large(name):
    assert not is_large(parse("image.png", "labels.png", "-o", name))
    for option in ("--changed", "--uncertainty", "--confident"):
        with pytest.raises(InputError, match=f"with {option}"):
            is_large(parse("image.png", "labels.png", "-o", name, option, "0.9"))


def test_the_command_takes_it(files, tiny_model_dir, capsys):
    out = files / "labels.tif"
    pytest.importorskip("tifffile", reason="tiled TIFFs: pip install '.[large]'")
    command = ["refine", files / "image.npy", files / "labels.npy", "-o", out, "--model", tiny_model_dir, "--steps", 1]
    assert main([*map(str, command), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == [90, 110] and out.is_file()
    assert main([*map(str, command), "--workers", "2"]) == 2
    assert "--workers with a folder of images" in capsys.readouterr().err
