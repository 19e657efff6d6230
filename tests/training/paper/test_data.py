"""Crops by number: the same for every process, with void, predictions and the mean colour where they belong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddps.errors import InputError
from ddps.training.paper.data import VOID, Crops, collate, label_space, read_split

from .conftest import BACKBONE, tiny_recipe


def crops_of(run, seed: int = 0, **data: object) -> Crops:
    config = replace(run.recipe.data, **data)
    return Crops(read_split(run, "train"), config, BACKBONE, seed)


def test_a_number_makes_a_crop(run_of):
    run = run_of()
    one, same, seeded = crops_of(run), crops_of(run), crops_of(run, seed=1)
    for index in (0, 7):
        a, b, c = one[index], same[index], seeded[index]
        assert torch.equal(a.image, b.image) and torch.equal(a.target, b.target)
        assert not torch.equal(a.image, c.image)
    assert not torch.equal(one[0].image, one[7].image)
    assert one[0].image.shape == (3, 32, 32) and one[0].target.dtype == torch.int64
    assert set(torch.cat([one[k].target for k in range(6)]).unique().tolist()) <= {VOID, 0, 1, 2}


def test_what_a_small_image_lacks_is_mean_colour_and_void(run_of):
    crop = crops_of(run_of(), resize=(1.0, 1.0), crop=96)[0]
    assert (crop.target[64:] == VOID).all() and (crop.target[:, 64:] == VOID).all()
    assert torch.allclose(crop.image[:, 80, 80] * 255, torch.tensor(BACKBONE.mean))


def test_predictions_are_cut_with_the_mask(run_of, predict, tmp_path):
    run = run_of(predictions=str(tmp_path / "predictions"))
    predict(Path(run.data), tmp_path / "predictions")
    crops = crops_of(run)
    for index in range(4):
        crop = crops[index]
        known = crop.target != VOID
        assert torch.equal(crop.predicted[known], crop.target[known]) and int(crop.predicted.min()) >= 0
    batch = collate([crops[0], crops[1]])
    assert batch.predicted.shape == batch.target.shape == (2, 32, 32)
    assert collate([crops_of(run_of())[0]]).predicted.numel() == 0


def test_what_does_not_fit(run_of, tmp_path):
    run = run_of()
    with pytest.raises(InputError, match="of 5 classes"):
        read_split(replace(run, recipe=tiny_recipe(classes=5)), "train")
    (tmp_path / "predictions" / "train").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "predictions" / "train" / "train0.png")
    with pytest.raises(InputError, match="a prediction in"):
        read_split(run_of(predictions=str(tmp_path / "predictions")), "train")
    mask = Path(run.data) / "train" / "masks" / "train0.png"
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(mask)
    crops = crops_of(run)
    with pytest.raises(InputError, match="a mask of the size"):
        for index in range(20):
            crops[index]


def test_names_and_colours_come_from_the_data_set(run_of):
    split = read_split(run_of(), "train")
    labels = label_space(tiny_recipe().model.labels, split.data)
    assert labels.names == ("c0", "c1", "c2") and len(labels.palette) == 3 and labels.void_first
