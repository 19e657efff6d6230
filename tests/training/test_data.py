"""Data sets to crops: determinism, soundness, and that image, prediction and truth stay aligned."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ddps.config import LabelSpace, LogitsNetwork
from ddps.errors import InputError
from ddps.models.slot_unet import BLANK
from ddps.training import TrainConfig
from ddps.training.class_balance import class_shares
from ddps.training.data import CropStream, Sample, collate, sample_window
from ddps.training.sets import read_data_set

from ..long.fuzz_readers import png_header

# Settings under which a crop is a window of its image and of a segmentor's prediction, and nothing else.
PLAIN = {"real_share": 1.0, "collage_share": 0.0, "condition_dropout": 0.0, "repair_share": 0.0}


def config_of(model, *folders, **settings) -> TrainConfig:
    values = {"data": tuple(map(str, folders)), "out": "run", "crop": 32, "model": model}
    return TrainConfig(**{**values, **settings})


def stream_of(model, *folders, predictions=None, **settings) -> CropStream:
    sets = [read_data_set(folder, "train", predictions, len(folders) > 1) for folder in folders]
    return CropStream(sets, config_of(model, *folders, **settings))


def same(a: Sample, b: Sample) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("image", "probs", "target"))


def test_a_crop_is_a_function_of_seed_and_index(make_set, predict, tiny_model, tmp_path):
    folder = make_set(classes=3)
    predict(folder, tmp_path / "root")
    state = torch.get_rng_state()
    first, second, other = (
        stream_of(tiny_model, folder, predictions=tmp_path / "root", real_share=0.5, collage_share=0.3, seed=seed)
        for seed in (1, 1, 2)
    )
    forwards = {index: first[index] for index in range(12)}
    backwards = {index: second[index] for index in reversed(range(12))}
    assert all(same(forwards[index], backwards[index]) for index in range(12))
    assert same(first[3], forwards[3]) and same(first[10**12], second[10**12])
    assert not any(same(forwards[index], other[index]) for index in range(12))
    assert not any(same(forwards[index], forwards[index + 1]) for index in range(11))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("share", ["real_share", "collage_share"])
@pytest.mark.parametrize("classes", [2, 10])
def test_every_crop_is_sound(make_set, predict, tiny_model, tmp_path, classes, share):
    folder = make_set(classes=classes)
    predict(folder, tmp_path / "root")
    settings = {"real_share": 0.0, "collage_share": 0.0, share: 0.8}
    stream = stream_of(tiny_model, folder, predictions=tmp_path / "root", **settings)
    slots = set()
    for index in range(40):
        sample = stream[index]
        assert sample.image.shape == (3, 32, 32) and sample.image.min() >= 0 and sample.image.max() <= 1
        assert 2 <= len(sample.probs) <= 4 and sample.probs.shape[1:] == (32, 32) == sample.target.shape
        assert (sample.probs >= 0).all()
        torch.testing.assert_close(sample.probs.sum(0), torch.ones(32, 32), rtol=0, atol=1e-3)
        assert sample.target.dtype == torch.int64
        assert set(sample.target.unique().tolist()) <= {*range(len(sample.probs)), 255}
        slots.add(len(sample.probs))
    assert slots > {2} or (classes == 2 and share == "real_share")


def agreement(stream: CropStream) -> float:
    right, known = 0.0, 0.0
    for index in range(12):
        sample = stream[index]
        labelled = sample.target != 255
        right += float((sample.probs.argmax(0) == sample.target)[labelled].sum())
        known += float(labelled.sum())
    return right / known


@pytest.mark.parametrize("merge", [None, [0, 1, 1], [1, 0, 0]])
def test_perfect_predictions_and_truth_agree_slot_by_slot(make_set, predict, tiny_model, tmp_path, merge):
    folder = make_set(classes=3)
    predict(folder, tmp_path / "root", merge=merge)
    stream = stream_of(tiny_model, folder, predictions=tmp_path / "root", **PLAIN)
    assert agreement(stream) > 0.95
    most = max(len(stream[index].probs) for index in range(12))
    assert most == (3 if merge is None else 2)


def test_a_wrong_merge_rule_would_show(make_set, predict, tiny_model, tmp_path):
    folder = make_set(classes=3)
    predict(folder, tmp_path / "root", merge=[0, 1, 1])
    (tmp_path / "root" / "classes.json").write_text(json.dumps({"merge": [1, 0, 0]}))
    assert agreement(stream_of(tiny_model, folder, predictions=tmp_path / "root", **PLAIN)) < 0.2


def test_predictions_of_another_resolution(make_set, tiny_model, tmp_path):
    folder = make_set()
    (tmp_path / "root" / "train").mkdir(parents=True)
    for path in (folder / "train" / "masks").iterdir():
        mask = torch.from_numpy(np.array(Image.open(path)) == 1)
        coarse = F.avg_pool2d(mask[None, None].float(), 4)[0, 0]
        probs = torch.stack([1 - coarse, coarse])
        np.savez(tmp_path / "root" / "train" / f"{path.stem}.npz", probs=probs.numpy())
    assert agreement(stream_of(tiny_model, folder, predictions=tmp_path / "root", **PLAIN)) > 0.93


def test_image_and_truth_show_the_same_window(make_set, tiny_model):
    """The squares are bright, in whatever light: within a crop, brightness tells the class."""
    stream = stream_of(tiny_model, make_set(), **{**PLAIN, "real_share": 0.0})
    told = []
    for index in range(30):
        sample = stream[index]
        grey = sample.image.mean(0)
        means = [grey[sample.target == slot] for slot in range(2)]
        if min(map(len, means)) < 50:
            continue
        middle = (means[0].mean() + means[1].mean()) / 2
        bright = (grey > middle) == (means[1].mean() > means[0].mean())
        labelled = sample.target != 255
        told.append(float((bright == (sample.target == 1))[labelled].float().mean()))
    assert len(told) > 10 and sum(told) / len(told) > 0.85


def test_void_is_255_whatever_the_data_set_calls_it(make_set, tiny_model):
    folder = make_set()
    for path in (folder / "train" / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[:] = 9
        mask[20:40] = 1
        Image.fromarray(mask).save(path)
    about = {"num_classes": 2, "ignore_index": 9}
    (folder / "classes.json").write_text(json.dumps(about))
    stream = stream_of(tiny_model, folder, **{**PLAIN, "real_share": 0.0})
    seen = [set(stream[index].target.unique().tolist()) for index in range(20)]
    assert all(len(values - {255}) <= 1 for values in seen) and any(values == {0, 255} for values in seen)


def test_blanked_images(make_set, tiny_model):
    stream = stream_of(tiny_model, make_set(), condition_dropout=1.0)
    assert all((stream[index].image == BLANK).all() for index in range(5))


def test_a_mask_of_another_size(make_set, tiny_model):
    folder = make_set(train=1)
    Image.fromarray(np.zeros((32, 64), dtype=np.uint8)).save(folder / "train" / "masks" / "train0.png")
    with pytest.raises(InputError, match="mask of the size"):
        stream_of(tiny_model, folder)[0]


def test_data_weights_choose_the_data_set(make_set, tiny_model):
    bright = make_set("bright")
    for path in (bright / "train" / "masks").iterdir():
        Image.fromarray(np.full((64, 64), 255, dtype=np.uint8)).save(path)
    dark = make_set("dark")
    only_bright = stream_of(tiny_model, bright, dark, data_weights=(1.0, 1e-9), collage_share=0.0)
    only_dark = stream_of(tiny_model, bright, dark, data_weights=(1e-9, 1.0), collage_share=0.0)
    assert all((only_bright[index].target == 255).all() for index in range(8))
    assert not any((only_dark[index].target == 255).all() for index in range(8))
    with pytest.raises(InputError, match="data weight"):
        stream_of(tiny_model, bright, dark, data_weights=(1.0,))


def test_no_more_slots_than_the_network_has(make_set, tiny_model):
    folder = make_set(classes=10)
    few = replace(tiny_model, network=LogitsNetwork(image_widths=(8, 8), slot_widths=(4, 4), max_slots=2))
    assert all(len(stream_of(few, folder)[index].probs) == 2 for index in range(10))


def test_batches_are_padded_to_the_most_slots():
    def sample(slots: int) -> Sample:
        return Sample(torch.rand(3, 8, 8), torch.full((slots, 8, 8), 1 / slots), torch.full((8, 8), slots - 1))

    batch = collate([sample(2), sample(4), sample(3)])
    assert batch.image.shape == (3, 3, 8, 8) and batch.probs.shape == (3, 4, 8, 8) and batch.target.shape == (3, 8, 8)
    assert batch.valid.sum(1).tolist() == [2, 4, 3] and (batch.probs[0, 2:] == 0).all()
    torch.testing.assert_close(batch.probs.sum(1), torch.ones(3, 8, 8))


def test_a_window_shows_the_same_place_at_any_resolution():
    values = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    axis = (torch.arange(8) + 0.5) / 8 - 0.5
    grid = torch.stack([axis.expand(8, 8), axis[:, None].expand(8, 8)], -1)[None]
    torch.testing.assert_close(sample_window(values, grid, "nearest"), values[:, 4:12, 4:12])
    torch.testing.assert_close(sample_window(values, grid, "bilinear"), values[:, 4:12, 4:12])
    finer = F.interpolate(values[None], scale_factor=2.0, mode="nearest")[0]
    torch.testing.assert_close(sample_window(finer, grid, "bilinear"), values[:, 4:12, 4:12])


# Networks that know their classes by name


def named(model, classes, max_slots=4):
    return replace(
        model, labels=LabelSpace(classes), network=replace(model.network, classes=classes, max_slots=max_slots)
    )


@pytest.mark.parametrize("real_share", [0.0, 1.0])
def test_slots_have_names(make_set, predict, tiny_model, tmp_path, real_share):
    """Slot by slot and class by class, the truth is the same."""
    folder = make_set(classes=6)
    predict(folder, tmp_path / "root")
    stream = stream_of(named(tiny_model, 6), folder, predictions=tmp_path / "root", real_share=real_share)
    for index in range(20):
        sample = stream[index]
        slots = len(sample.probs)
        assert sample.classes.shape == (4,) and (sample.classes[slots:] == 6).all()
        held = [k for k in sample.classes[:slots].tolist() if k < 6]
        assert len(held) == len(set(held)) >= slots - 1
        known = sample.target != 255
        assert torch.equal(known, sample.labels != 255) or slots == 4
        by_name = sample.classes[sample.target.masked_fill(~known, 0)]
        assert ((by_name == sample.labels) | (by_name == 6))[known].all()
        assert known.any() and sample.image.shape == (3, 32, 32)


def test_nothing_is_turned_upside_down_or_pasted_where_classes_have_names(make_set, tiny_model):
    """A ramp from dark above to bright below stays one, in whatever light."""
    folder = make_set()
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None], 64, 1)
    for path in (folder / "train" / "images").iterdir():
        Image.fromarray(np.repeat(ramp[:, :, None], 3, 2)).save(path)
    settings = {"collage_share": 1.0, "condition_dropout": 0.0}
    rises = []
    for index in range(60):
        grey = stream_of(named(tiny_model, 2), folder, **settings)[index].image.mean((0, 2))
        rises.append(float(grey[-8:].mean() - grey[:8].mean()))
    # one in twenty is a negative
    assert sum(rise < -0.02 for rise in rises) <= 10
    assert max(stream_of(named(tiny_model, 2), folder, **settings)[index].labels.max() for index in range(5)) <= 255


def test_label_maps_are_also_shown_as_probabilities(make_set, predict, tiny_model, tmp_path):
    folder = make_set(classes=3)
    predict(folder, tmp_path / "root")
    stream = stream_of(named(tiny_model, 3), folder, predictions=tmp_path / "root", **PLAIN)
    levels = [len(stream[index].probs.amax(0).mul(1000).round().unique()) for index in range(30)]
    assert any(count > 100 for count in levels) and any(count < 60 for count in levels)
    assert agreement(stream) > 0.93


def test_a_batch_of_named_slots(make_set, tiny_model):
    stream = stream_of(named(tiny_model, 5), make_set(classes=5))
    batch = collate([stream[index] for index in range(6)])
    assert batch.classes.shape == batch.valid.shape and batch.labels.shape == batch.target.shape
    assert (batch.classes[~batch.valid] == 5).all()
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.classes, batch.classes) and collate([Sample(*[torch.rand(2, 4, 4)] * 3)]).classes is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((64, 64), 7, dtype=np.uint8), "ids below 3"),
        (np.full((64, 64), 300, dtype=np.uint16), "ids below 3"),
        (np.zeros((64, 64, 3), dtype=np.uint8), "class ids"),
    ],
)
def test_a_mask_with_other_values_than_classes(make_set, tiny_model, mask, message):
    folder = make_set(classes=3, train=1)
    Image.fromarray(mask).save(folder / "train" / "masks" / "train0.png")
    with pytest.raises(InputError, match=message):
        stream_of(tiny_model, folder)[0]


@pytest.mark.parametrize(
    "data", [b"", b"text", png_header(60_000, 60_000), png_header(64, 64)[:40]], ids=["empty", "text", "bomb", "cut"]
)
def test_a_damaged_mask_is_named(make_set, tiny_model, data):
    folder = make_set(classes=3, train=1)
    (folder / "train" / "masks" / "train0.png").write_bytes(data)
    with pytest.raises(InputError, match=r"train0\.png"):
        stream_of(tiny_model, folder)[0]
    with pytest.raises(InputError, match=r"train0\.png"):
        class_shares(read_data_set(folder, "train", None))


def test_refined_crops_are_of_images_that_do_not_teach(make_set, tiny_model):
    """Every image is of one class, its own."""
    folder = make_set(classes=2, train=10)
    for number, path in enumerate(sorted((folder / "train" / "masks").iterdir())):
        Image.fromarray(np.full((64, 64), number % 10, dtype=np.uint8)).save(path)
    (folder / "classes.json").write_text(json.dumps({"num_classes": 10}))
    stream = stream_of(named(tiny_model, 10), folder, batch_size=4, refined_share=0.5, taught_share=0.6)
    seen = [set(), set()]
    for index in range(80):
        seen[index % 4 < 2].update(stream[index].labels.unique().tolist())
    taught, refined = seen
    assert taught.isdisjoint(refined) and len(taught) == 6 and len(refined) == 4
