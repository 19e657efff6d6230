"""An exported step says what torch says, at every size, and is not written where it does not."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ddps.export
from ddps import DDPSConfig, DDPSRefiner, InputError
from ddps.config import FeaturesNetwork, LabelSpace, ScheduleConfig
from ddps.export import DenoisingStep, check_exportable, export, metadata
from ddps.refiner import build_network

from .conftest import EXPORTED, TINY, make_tiny_refiner

# (batch, slots, height, width), the sides in strides of 4 px
SIZES = ((1, 2, 2, 2), (1, 7, 9, 3), (3, 4, 2, 11), (2, 12, 5, 5))


def inputs(size: tuple[int, int, int, int], classes: int = 0) -> list[Tensor]:
    batch, slots, height, width = size
    generator = torch.Generator().manual_seed(slots)
    image = torch.rand(batch, 3, 4 * height, 4 * width, generator=generator)
    probs = (3 * torch.randn(batch, slots, 4 * height, 4 * width, generator=generator)).softmax(1)
    mask = torch.randint(slots, (batch, 2 * height, 2 * width), generator=generator)
    times = torch.randint(20, (batch,), generator=generator)
    ids = torch.stack([torch.randperm(classes, generator=generator)[:slots] for _ in range(batch)]) if classes else None
    return [image, probs, mask, times, *([] if ids is None else [ids])]


@torch.no_grad()
def in_torch(refiner: DDPSRefiner, values: list[Tensor]) -> list[Tensor]:
    """As `refine` runs the network: with all its shortcuts."""
    image, probs, mask, times, *classes = values
    network = refiner._fast
    assert network is not None
    condition = network.condition(image, probs, classes=classes[0] if classes else None)
    denoised = network.denoise(mask, times, condition)
    return [network.finish(denoised, condition), denoised.logits]


def assert_parity(answers: list[Tensor], wanted: list[Tensor]) -> None:
    for answer, its in zip(answers, wanted, strict=True):
        assert answer.shape == its.shape and answer.dtype == torch.float32
        assert float((answer - its).abs().max()) <= 1e-3
        assert float((answer.argmax(1) == its.argmax(1)).float().mean()) >= 0.999


def run_onnx(path: Path, values: list[Tensor]) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, values, strict=True)}
    return [torch.from_numpy(value) for value in session.run(["logits", "coarse_logits"], feed)]


@pytest.mark.parametrize("size", SIZES)
def test_onnx_says_what_torch_says(tiny_onnx, size):
    refiner = make_tiny_refiner(EXPORTED)
    wanted = in_torch(refiner, inputs(size))
    # the random weights do move masks: parity is not that of the identity
    assert float((wanted[0].argmax(1) != inputs(size)[1].argmax(1)).float().mean()) > 0.01
    assert_parity(run_onnx(tiny_onnx, inputs(size)), wanted)


def test_onnx_takes_the_smallest_image(tiny_onnx):
    values = inputs((1, 2, 1, 1))
    assert_parity(run_onnx(tiny_onnx, values), in_torch(make_tiny_refiner(EXPORTED), values))


def test_an_onnx_file_says_how_it_is_run(tiny_onnx):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tiny_onnx), providers=["CPUExecutionProvider"])
    shapes = {value.name: value.shape for value in [*session.get_inputs(), *session.get_outputs()]}
    assert shapes["image"] == ["batch", 3, "height", "width"] and shapes["probs"][1] == "slots"
    assert shapes["mask"] == ["batch", "height/2", "width/2"] and shapes["logits"][2:] == ["height", "width"]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ddps"])
    assert DDPSConfig.from_json(json.dumps(facts["config"])) == EXPORTED
    assert facts["stride"] == 4 and facts["slots"]["most"] == 4
    refiner = make_tiny_refiner(EXPORTED)
    assert facts["alpha_bar"] == refiner.schedule.alpha_bar[:-1].tolist() and len(facts["alpha_bar"]) == 20


def test_pt2_says_what_torch_says(tmp_path):
    refiner = make_tiny_refiner()
    made = export(refiner, tmp_path / "tiny.pt2", "pt2")
    assert made.difference <= 1e-3 and made.bytes == made.path.stat().st_size
    extra = {"ddps": ""}
    module = torch.export.load(made.path, extra_files=extra).module()
    for size in SIZES:
        assert_parity(list(module(*inputs(size))), in_torch(refiner, inputs(size)))
    assert json.loads(extra["ddps"]) == json.loads(metadata(refiner))


def test_a_network_that_knows_its_classes(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="exporting needs it: pip install '.[onnx]'")
    own = replace(TINY, labels=LabelSpace(num_classes=6), network=replace(TINY.network, classes=6))
    refiner = make_tiny_refiner(own)
    made = export(refiner, tmp_path / "own.onnx", "onnx")
    assert made.inputs == ("image", "probs", "mask", "step", "classes")
    for size in ((1, 3, 4, 4), (2, 5, 2, 6)):
        values = inputs(size, classes=6)
        assert_parity(run_onnx(made.path, values), in_torch(refiner, values))


def test_the_model_stays_as_it_is():
    refiner = make_tiny_refiner()
    before = {name: value.clone() for name, value in refiner.network.state_dict().items()}
    step = DenoisingStep(refiner.network)  # type: ignore[arg-type]
    step.network.change.weight.data.zero_()
    for name, value in refiner.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_step_that_differs_is_not_written(tmp_path, monkeypatch):
    def off_by_little(content):
        step = DenoisingStep(make_tiny_refiner().network)  # type: ignore[arg-type]

        @torch.no_grad()
        def run(values):
            logits, coarse = step(*values)
            return [logits, coarse + 2e-3]

        return run

    # tracing takes seconds, and here nothing of it is looked at
    monkeypatch.setattr(ddps.export, "_trace", lambda step: None)
    monkeypatch.setattr(ddps.export, "_to_pt2", lambda program, facts: b"")
    monkeypatch.setattr(ddps.export, "_program_runner", off_by_little)
    with pytest.raises(InputError, match="within 0.001 of torch; got 0.002"):
        export(make_tiny_refiner(), tmp_path / "tiny.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(monkeypatch):
    network = FeaturesNetwork(in_channels=(4, 4), channels=8, dim=8, out_dim=8, embed_dim=4, num_classes=3)
    config = DDPSConfig(network=network, schedule=ScheduleConfig(num_steps=4))
    with pytest.raises(InputError, match="features"):
        check_exportable(DDPSRefiner(config, build_network(config), device="cpu"), "onnx")
    with pytest.raises(InputError, match="'onnx' or 'pt2'"):
        check_exportable(make_tiny_refiner(), "tflite")  # type: ignore[arg-type]
    with monkeypatch.context() as older:
        older.setattr(torch, "__version__", "2.2.0+cpu")
        with pytest.raises(InputError, match="torch 2.9 or later"):
            check_exportable(make_tiny_refiner(), "pt2")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(ddps.export, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(InputError, match=r"got no .*onnxscript.*pip install \"ddps\[onnx\]\""):
        check_exportable(make_tiny_refiner(), "onnx")
    check_exportable(make_tiny_refiner(), "pt2")
