"""A SegFormer with random weights, small enough to train on in seconds, and recipes of its size."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddps.config import BackboneConfig, DDPSConfig, FeaturesNetwork, InferenceConfig, LabelSpace, ScheduleConfig
from ddps.training.paper import FrozenSegmentor, PaperRun, Recipe, Seen
from ddps.training.paper.config import DataConfig, ObjectiveConfig, OptimizerConfig, ReportConfig, StageConfig

CLASSES = 3
BACKBONE = BackboneConfig(
    embed_dims=(4, 8), depths=(1, 1), num_heads=(1, 2), sr_ratios=(2, 1), patch_sizes=(7, 3), strides=(4, 2)
)  # fmt: skip


@pytest.fixture(autouse=True)
def same_global_random_numbers():
    """Training seeds torch; other tests should not notice."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def tiny_recipe(void_first: bool = True, classes: int = CLASSES) -> Recipe:
    return Recipe(
        name="tiny",
        notes=(),
        model=DDPSConfig(
            name="tiny",
            labels=LabelSpace(classes, void_first=void_first),
            schedule=ScheduleConfig(num_steps=4),
            network=FeaturesNetwork(
                in_channels=BACKBONE.embed_dims, channels=8, embed_dim=4, dim=8, dim_mults=(1, 1), out_dim=8,
                num_classes=classes + void_first, dropout=0.1,
            ),
            backbone=BACKBONE,
            inference=InferenceConfig(steps=2),
        ),
        data=DataConfig("folders", (), (0.8, 1.25), 32, 0.75, 0.5, True),
        objective=ObjectiveConfig("first_prediction", 0.0),
        single_step=StageConfig(4, 100, "frozen_if_given", "frozen"),
        multi_step=StageConfig(4, 100, "frozen", "frozen"),
        optimizer=OptimizerConfig(2, 1e-3, (0.9, 0.96), 0.045, 2, 1e-6, 0.0, 0.5, 2),
        report=ReportConfig(log_every=1, validate_every=100, validate_images=2, save_every=3, amp="off"),
    )  # fmt: skip


def changed(recipe: Recipe, **parts: object) -> Recipe:
    """A recipe with single settings changed: `multi_step={"fusion": "trained"}`."""
    new = {
        name: dataclasses.replace(getattr(recipe, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return dataclasses.replace(recipe, **new)


class Strided(FrozenSegmentor):
    """Another network: averages of the image at strides 4 and 8, and a head that knows the brightness of 3 classes."""

    has_logits = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(12, 3, 1, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, image: torch.Tensor) -> Seen:
        fine = torch.nn.functional.avg_pool2d(image, 4)
        coarse = torch.nn.functional.avg_pool2d(image, 8)
        levels = torch.tensor([0.15, 0.5, 0.85])[:, None, None]
        logits = -((fine.mean(1, keepdim=True) - levels) ** 2) * 30
        weights = self.weight[:4], self.weight[4:]
        features = [torch.nn.functional.conv2d(x, w) for x, w in zip((fine, coarse), weights, strict=True)]
        return Seen(features, logits)


@pytest.fixture
def segformer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer that transformers saved, with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[4, 8], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[4, 4], decoder_hidden_size=8, num_labels=CLASSES,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("segformer")
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


@pytest.fixture
def run_of(make_set: Callable[..., Path], tmp_path: Path) -> Callable[..., PaperRun]:
    """A run on squares of three classes; keywords are settings of the run."""

    def make(recipe: Recipe | None = None, **settings: object) -> PaperRun:
        folder = tmp_path / "squares"
        data = folder if folder.is_dir() else make_set(classes=CLASSES, train=3, val=2)
        values = {"data": str(data), "out": str(tmp_path / "run"), "device": "cpu"}
        return PaperRun(recipe or tiny_recipe(), **{**values, **settings})

    return make
