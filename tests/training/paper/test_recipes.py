"""The recipes that come with the package: complete, right, and open to changes."""

import dataclasses
import json
import typing
from importlib import resources

import pytest

from ddps.config import FeaturesNetwork
from ddps.errors import InputError
from ddps.models.paper import FeaturesDenoiser
from ddps.training.paper import PaperRun, load_recipe, recipe_names

SIZES = {"b0": 3.319392, "b1": 13.151424, "b2": 24.196288, "b3": 44.072128, "b4": 60.842688, "b5": 81.443008}
NAME = "paper-segformer-b2-ade20k"


def keys_of(data: object, path: str = "") -> set[str]:
    if not isinstance(data, dict):
        return {path}
    return set().union(*(keys_of(value, f"{path}.{key}") for key, value in data.items()))


def test_all_sizes_and_both_data_sets():
    wanted = {f"paper-segformer-{size}-{data}" for size in SIZES for data in ("ade20k", "cityscapes")}
    assert set(recipe_names()) == wanted


@pytest.mark.parametrize("name", recipe_names())
def test_complete_and_readable(name):
    recipe = load_recipe(name)
    written = json.loads((resources.files("ddps.training") / "recipes" / f"{name}.json").read_text())
    # every setting is in the file, none is a default that could change behind its back
    assert written == json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert recipe.name == name and recipe.notes
    size, data = name.split("-")[2:]
    assert recipe.model.labels.num_classes == {"ade20k": 150, "cityscapes": 19}[data]
    assert recipe.network.num_classes == recipe.model.labels.num_classes + 1 and recipe.model.labels.void_first
    assert recipe.data.layout == data and recipe.model.backbone is not None
    assert (size == "b0") == (recipe.model.backbone.embed_dims == (32, 64, 160, 256))


@pytest.mark.parametrize("name", recipe_names())
def test_the_papers_settings(name):
    recipe = load_recipe(name)
    optimizer, data = recipe.optimizer, recipe.data
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (1.5e-4, (0.9, 0.96), 0.045)
    assert (optimizer.warmup, optimizer.warmup_lr, optimizer.batch_size) == (1000, 1e-6, 4)
    assert (optimizer.ema_momentum, optimizer.ema_every) == (0.01, 25)
    assert recipe.single_step.iterations == recipe.multi_step.iterations == 80_000
    assert recipe.single_step.halve_every == recipe.multi_step.halve_every == 20_000
    assert recipe.multi_step.fusion == recipe.multi_step.embedding == "frozen"
    assert (data.resize, data.most_of_one_class, data.photometric) == ((0.5, 2.0), 0.75, True)
    assert recipe.network.dropout == 0.1 and recipe.objective.noised == "first_prediction"
    schedule = recipe.model.schedule
    assert (schedule.kind, schedule.num_steps, schedule.kernel) == ("linear", 20, "uniform")
    assert recipe.model.backbone.mean == (123.675, 116.28, 103.53)
    assert recipe.model.backbone.std == (58.395, 57.12, 57.375)
    assert data.crop == (512 if name.endswith("ade20k") else 1024)


@pytest.mark.parametrize(("size", "millions"), [("b0", 15.1), ("b2", 65.5), ("b5", 122.8)])
def test_as_many_parameters_as_the_paper_reports(size, millions):
    import torch

    recipe = load_recipe(f"paper-segformer-{size}-ade20k")
    with torch.device("meta"):
        head = FeaturesDenoiser(recipe.network, recipe.model.schedule)
    count = sum(p.numel() for p in head.parameters()) / 1e6 + SIZES[size]
    assert count == pytest.approx(millions, abs=0.1)


def test_the_released_model_s_names_and_shapes(shared):
    import torch

    path = shared / "golden" / "segformer_b2_ade20k_keys.json"
    wanted = {k.removeprefix("decode_head."): v for k, v in json.loads(path.read_text()).items() if "decode_head" in k}
    recipe = load_recipe(NAME, ["model.schedule.num_steps=100"])
    with torch.device("meta"):
        head = FeaturesDenoiser(recipe.network, recipe.model.schedule)
    assert {name: list(value.shape) for name, value in head.state_dict().items()} == wanted


def test_single_settings_changed():
    recipe = load_recipe(
        NAME,
        ["optimizer.lr=1e-3", "model.schedule.kind=cosine", "data.fit=[]", "data.photometric=false", "model.name=12"],
    )
    assert recipe.optimizer.lr == 1e-3 and recipe.model.schedule.kind == "cosine" and recipe.data.fit == ()
    assert not recipe.data.photometric and recipe.model.name == "12"
    other = load_recipe(NAME, ["model.backbone=null", "model.network.in_channels=[256, 512]"])
    assert other.model.backbone is None and other.network.in_channels == (256, 512)


def test_recipes_of_one_s_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(dataclasses.asdict(load_recipe(NAME))))
    assert load_recipe(path) == load_recipe(NAME)
    run = PaperRun(load_recipe(path), "data", "out", seed=3)
    assert PaperRun.from_json(run.to_json()) == run
    for text in ("{", "[]", "{}", '{"name": "x"}'):
        path.write_text(text)
        with pytest.raises(InputError):
            load_recipe(path)


BAD = (
    "optimizer.lr", "=1", "optimizer.rate=1", "optimiser.lr=1", "optimizer=1", "optimizer.lr.x=1", "optimizer.lr=fast",
    "optimizer.lr=0", "optimizer.betas=[0.9]", "optimizer.betas=[0.9, 1]", "optimizer.ema_momentum=0",
    "data.resize=[2, 1]", "data.fit=[512]", "data.crop=8", "data.layout=voc", "data.flip=2", "objective.noised=image",
    "objective.condition_dropout=2", "single_step.iterations=-1", "multi_step.halve_every=0", "multi_step.fusion=half",
    "model.labels.num_classes=null", "model.network.num_classes=150", "report.save_every=0", "report.amp=fp8",
)  # fmt: skip


@pytest.mark.parametrize("change", BAD)
def test_bad_changes(change):
    with pytest.raises(InputError) as caught:
        load_recipe(NAME, [change])
    assert "\n" not in str(caught.value)


def test_a_recipe_is_of_the_papers_network():
    recipe = load_recipe(NAME)
    from ddps import DDPSConfig

    with pytest.raises(InputError, match="without --recipe"):
        dataclasses.replace(recipe, model=DDPSConfig())
    with pytest.raises(InputError, match="iterations"):
        load_recipe(NAME, ["single_step.iterations=0", "multi_step.iterations=0"])
    assert typing.get_type_hints(type(recipe))["model"] is DDPSConfig and isinstance(recipe.network, FeaturesNetwork)
