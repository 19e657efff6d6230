"""From a `.pth` file to a folder: which weights, which labels, and what is refused with nothing written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSRefiner, InputError
from ddps.config import LabelSpace, ScheduleConfig
from ddps.convert import convert_checkpoint
from ddps.label_spaces import ADE20K_NAMES, ADE20K_PALETTE, CITYSCAPES_NAMES, CITYSCAPES_PALETTE

from ..whole_models import NETWORK, TINY_WHOLE, whole_refiner, write_checkpoint


def edit(path: Path, change) -> Path:
    """Rewrites a checkpoint after `change(state_dict)`."""
    content = torch.load(path, weights_only=False)
    change(content["state_dict"])
    torch.save(content, path)
    return path


def refused(path: Path, folder: Path, **keywords) -> str:
    """The one line, after which nothing is there."""
    with pytest.raises(InputError) as caught:
        convert_checkpoint(path, folder, **keywords)
    assert not folder.exists() and "\n" not in str(caught.value)
    return str(caught.value)


def of_classes(classes: int, **changes):
    return replace(TINY_WHOLE, network=replace(NETWORK, num_classes=classes), **changes)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "trained.pth", whole_refiner())


def test_averages_are_taken_where_there_are_any(tmp_path, checkpoint):
    wanted = whole_refiner().network.state_dict()
    made = convert_checkpoint(checkpoint, tmp_path / "model")
    assert made.weights == "ema" and made.parameters == sum(p.numel() for p in whole_refiner().network.parameters())
    found = DDPSRefiner.from_pretrained(made.folder, device="cpu").network.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_raw_weights_on_demand_or_where_there_are_no_averages(tmp_path, checkpoint):
    made = convert_checkpoint(checkpoint, tmp_path / "raw", weights="raw")
    wanted = whole_refiner().network.state_dict()
    found = DDPSRefiner.from_pretrained(made.folder, device="cpu").network.state_dict()
    assert made.weights == "raw"
    assert all(torch.equal(found[n], wanted[n] + 1) for n in wanted if n.endswith(".weight") and "log" not in n)
    plain = write_checkpoint(tmp_path / "plain.pth", whole_refiner(), averages=False)
    made = convert_checkpoint(plain, tmp_path / "plain")
    found = DDPSRefiner.from_pretrained(made.folder, device="cpu").network.state_dict()
    assert made.weights == "raw" and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert "averaged weights" in refused(plain, tmp_path / "none", weights="ema")


def test_a_state_dict_alone_is_read(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=False)
    torch.save(content["state_dict"], checkpoint)
    assert convert_checkpoint(checkpoint, tmp_path / "model").weights == "ema"


def test_averages_of_parameters_only_and_half_averages(tmp_path, checkpoint):
    def drop_buffers(state):
        for name in list(state):
            if name.startswith("ema_") and name.endswith(("running_mean", "num_batches_tracked", "log_at")):
                del state[name]

    assert convert_checkpoint(edit(checkpoint, drop_buffers), tmp_path / "model").weights == "ema"
    edit(checkpoint, lambda state: state.pop("ema_decode_head_embed_weight"))
    assert "none for 'decode_head.embed.weight'" in refused(checkpoint, tmp_path / "none")


def test_half_precision_is_widened(tmp_path, checkpoint):
    def halve(state):
        for name, value in state.items():
            if value.is_floating_point() and "log_" not in name:
                state[name] = value.half()

    made = convert_checkpoint(edit(checkpoint, halve), tmp_path / "model")
    state = DDPSRefiner.from_pretrained(made.folder, device="cpu").network.state_dict()
    assert state["embed.weight"].dtype == torch.float32


# Label spaces


@pytest.mark.parametrize(
    ("classes", "names", "palette", "void_first"),
    [
        (151, ADE20K_NAMES, ADE20K_PALETTE, True),
        (150, ADE20K_NAMES, ADE20K_PALETTE, False),
        (20, CITYSCAPES_NAMES, CITYSCAPES_PALETTE, True),
        (19, CITYSCAPES_NAMES, CITYSCAPES_PALETTE, False),
    ],
)
@pytest.mark.parametrize("meta", ["none", "own", "with void"])
def test_the_papers_label_spaces(tmp_path, classes, names, palette, void_first, meta):
    given = {"none": None, "own": names, "with void": ("background", *names) if void_first else names}[meta]
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(of_classes(classes)), classes=given)
    labels = convert_checkpoint(path, tmp_path / "model").config.labels
    assert labels == LabelSpace(len(names), names, palette, 255, void_first)


def test_as_many_classes_of_another_data_set(tmp_path):
    own = tuple(f"organ {k}" for k in range(20))
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(of_classes(20)), classes=own)
    assert convert_checkpoint(path, tmp_path / "model").config.labels == LabelSpace(20, own)
    first = convert_checkpoint(path, tmp_path / "first", void="first").config.labels
    assert first == LabelSpace(19, own[1:], void_first=True)
    plain = write_checkpoint(tmp_path / "plain.pth", whole_refiner(of_classes(20)))
    assert convert_checkpoint(plain, tmp_path / "plain", void="none").config.labels == LabelSpace(20)


def test_names_that_do_not_fit_are_not_guessed(tmp_path):
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(), classes=("a", "b", "c", "d"))
    assert "--void first if class 0 is void" in refused(path, tmp_path / "none")
    made = convert_checkpoint(path, tmp_path / "model", void="first")
    assert made.config.labels == LabelSpace(4, ("a", "b", "c", "d"), void_first=True)


@pytest.mark.parametrize(("kind", "steps", "kernel"), [("linear", 20, "uniform"), ("cosine", 100, "absorbing")])
def test_the_schedule_is_told_by_its_table(tmp_path, kind, steps, kernel):
    config = replace(TINY_WHOLE, schedule=ScheduleConfig(kind, steps, kernel))
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(config))
    made = convert_checkpoint(path, tmp_path / "model").config
    assert made.schedule == config.schedule and made.network == config.network and made.backbone == config.backbone
    assert made.inference.steps == 20


def test_a_head_alone(tmp_path):
    config = replace(TINY_WHOLE, backbone=None)
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(config))
    assert convert_checkpoint(path, tmp_path / "model").config.backbone is None


# What is refused


def test_unknown_names_are_listed(tmp_path, checkpoint):
    def add(state):
        for name in ("decode_head.aspp_modules.0.conv.weight", "auxiliary_head.conv_seg.bias", "ema_unheard_of"):
            state[name] = torch.zeros(3)

    said = refused(edit(checkpoint, add), tmp_path / "none")
    assert (
        "3 unknown names: 'auxiliary_head.conv_seg.bias', 'decode_head.aspp_modules.0.conv.weight', 'ema_unhe" in said
    )


@pytest.mark.parametrize(
    "name", ["backbone.layers.0.1.7.norm1.weight", "decode_head.unet.extra.weight", "decode_head.convs.0.conv.bias"]
)
def test_names_of_the_right_family_but_not_of_the_network(tmp_path, checkpoint, name):
    def add(state):
        state[name] = torch.zeros(8)
        state["ema_" + name.replace(".", "_")] = torch.zeros(8)

    said = refused(edit(checkpoint, add), tmp_path / "none")
    assert name.removeprefix("decode_head.") in said or "depths" in said or "missing" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("decode_head.unet.mid_block1.block1.proj.weight", torch.zeros(16, 16, 5, 5), "mis-shaped"),
        ("backbone.layers.1.1.1.ffn.layers.4.weight", torch.zeros(16, 60, 1, 1), "mis-shaped"),
        ("backbone.layers.1.1.1.attn.attn.in_proj_weight", torch.zeros(47, 16), "mis-shaped"),
        ("decode_head.fusion_conv.bn.num_batches_tracked", torch.tensor(1.0), "of another type"),
        ("decode_head.unet.final_conv.bias", torch.full((8,), float("nan")), "NaN or infinity"),
        ("decode_head.embed.weight", torch.zeros(1, 1).expand(5, 3), "plain tensors"),
        ("decode_head.embed.weight", torch.zeros(5, 3).to_sparse(), "plain tensors"),
        ("decode_head.embed.weight", [1, 2], "list under 'decode_head.embed.weight'"),
        ("decode_head.conv_seg_new.weight", torch.zeros(5), "mis-shaped"),
        ("decode_head.unet.init_conv.weight", torch.zeros(()), "of other shapes"),
        ("decode_head.unet.init_conv.weight", torch.zeros(1, 1, 1, 1).expand(10**6, 1, 1, 1), "plain tensors"),
        ("decode_head.log_cumprod_at", torch.zeros(21), "another table"),
        ("decode_head.log_cumprod_at", torch.zeros(1), "another table"),
    ],
)
def test_wrong_tensors(tmp_path, name, value, said):
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(), averages=False)
    assert said in refused(edit(path, lambda state: state.update({name: value})), tmp_path / "none")


@pytest.mark.parametrize(
    "name",
    [
        "decode_head.unet.final_conv.bias",
        "decode_head.embed.weight",
        "backbone.layers.1.2.weight",
        "decode_head.log_bt",
    ],
)
def test_missing_tensors(tmp_path, name):
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(), averages=False)
    said = refused(edit(path, lambda state: state.pop(name)), tmp_path / "none")
    assert name.removeprefix("decode_head.") in said


def test_checkpoints_of_other_methods(tmp_path):
    path = tmp_path / "model.pth"
    segformer = {
        "backbone.layers.0.0.projection.weight": torch.zeros(8, 3, 7, 7),
        "decode_head.conv_seg.bias": torch.zeros(2),
    }
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(1000)}
    for state in (segformer, resnet):
        torch.save({"state_dict": state}, path)
        assert "another method's" in refused(path, tmp_path / "none")
    for content in ({}, {"state_dict": {}}, {"state_dict": [1]}, {"meta": {"a": 1}}, {1: torch.zeros(1)}):
        torch.save(content, path)
        refused(path, tmp_path / "none")


def test_what_is_there_is_not_replaced_unless_asked(tmp_path, checkpoint):
    folder = tmp_path / "model"
    convert_checkpoint(checkpoint, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match="--overwrite"):
        convert_checkpoint(checkpoint, folder, weights="raw")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    bad = write_checkpoint(tmp_path / "bad.pth", whole_refiner())
    edit(bad, lambda state: state.update(more=torch.zeros(1)))
    with pytest.raises(InputError):
        convert_checkpoint(bad, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    convert_checkpoint(checkpoint, folder, weights="raw", overwrite=True)
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder to write"):
        convert_checkpoint(checkpoint, tmp_path / "file")


def test_card_and_config_say_what_it_is(tmp_path):
    path = write_checkpoint(tmp_path / "SegFormer.pth", whole_refiner(of_classes(151)))
    folder = convert_checkpoint(path, tmp_path / "model").folder
    card = (folder / "README.md").read_text()
    assert "refiner.refine(image)\n" in card and "averaged weights (ema_*)" in card and str(tmp_path) not in card
    assert "0 wall, 1 building" in card and "void first" in card and "after 160000 iterations" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["name"] == "SegFormer" and config["labels"]["void_first"] is True
    assert len(config["labels"]["names"]) == len(config["labels"]["palette"]) == config["labels"]["num_classes"] == 150


def test_converted_models_answer_in_the_users_label_space(tmp_path):
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner(of_classes(20), seed=3))
    refiner = DDPSRefiner.from_pretrained(convert_checkpoint(path, tmp_path / "model").folder, device="cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    raw, own = (refiner.refine(image, raw_labels=raw_labels, steps=2) for raw_labels in (True, False))
    assert raw.labels.max() <= 19 and len(np.unique(raw.labels)) > 2 and raw.names[:2] == ("void", "road")
    assert np.array_equal(own.labels, np.where(raw.labels == 0, 255, raw.labels - 1)) and own.names[0] == "road"
