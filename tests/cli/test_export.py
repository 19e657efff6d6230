"""`ddps export` writes a file that was held against torch, and refuses what it cannot write before any work."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddps import DDPSRefiner
from ddps.config import DDPSConfig, FeaturesNetwork, ScheduleConfig
from ddps.refiner import build_network

from ..conftest import TINY


def test_a_program_by_suffix(run, tmp_path, tiny_model_dir):
    outcome = run("export", tiny_model_dir, "-o", tmp_path / "step.pt2", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["format"] == "pt2" and outcome.json["inputs"] == ["image", "probs", "mask", "step"]
    assert outcome.json["difference"] <= 1e-3
    assert outcome.json["bytes"] == (tmp_path / "step.pt2").stat().st_size
    module = torch.export.load(tmp_path / "step.pt2").module()
    values = torch.rand(1, 3, 8, 12), torch.full((1, 3, 8, 12), 1 / 3), torch.zeros(1, 4, 6, dtype=torch.int64)
    logits, coarse = module(*values, torch.tensor([19]))
    assert logits.shape == (1, 3, 8, 12) and coarse.shape == (1, 3, 4, 6) and np.isfinite(logits.numpy()).all()


@pytest.mark.parametrize("arguments", [("-o", "step.bin"), ("-o", "there.onnx"), ("-o", "none/step.onnx"), ()])
def test_bad_outputs(run, tmp_path, monkeypatch, tiny_model_dir, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"mine")
    outcome = run("export", tiny_model_dir, *arguments)
    assert outcome.code == 2 and outcome.out == "" and outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"


def test_models_on_features_are_refused(run, tmp_path):
    network = FeaturesNetwork(in_channels=(4, 4), channels=8, dim=8, out_dim=8, embed_dim=4, num_classes=3)
    config = DDPSConfig(network=network, schedule=ScheduleConfig(num_steps=4), inference=replace(TINY.inference))
    DDPSRefiner(config, build_network(config), device="cpu").save_pretrained(tmp_path / "paper")
    outcome = run("export", tmp_path / "paper", "-o", tmp_path / "step.onnx")
    assert outcome.is_bad_input() and "features" in outcome.err
    assert not (tmp_path / "step.onnx").exists()
