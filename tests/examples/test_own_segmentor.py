"""The template of a user's segmentor: it trains, and what it predicts fits `ddps train --segmentor`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddps.training.user_segmentor import find_callable


@pytest.fixture
def template(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    fit = find_callable("examples.own_segmentor:fit")
    monkeypatch.setitem(fit.__globals__, "STEPS", 20)
    monkeypatch.setitem(fit.__globals__, "SIDE", 48)
    state = torch.get_rng_state()
    yield fit
    torch.set_rng_state(state)


def test_it_finds_what_is_bright(template, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "classes.json").write_text(json.dumps({"num_classes": 2}))
    for part in ("images", "masks"):
        (tmp_path / "train" / part).mkdir(parents=True)
    images, masks = [], []
    for number in range(3):
        mask = np.zeros((40, 56), dtype=np.uint8)
        mask[8:30, 10 + number : 40] = 1
        grey = (60 + 120 * mask + rng.normal(0, 10, mask.shape)).clip(0, 255).astype(np.uint8)
        mask[:3] = 255
        images.append(tmp_path / "train" / "images" / f"{number}.png")
        masks.append(tmp_path / "train" / "masks" / f"{number}.png")
        Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(images[-1])
        Image.fromarray(mask).save(masks[-1])
    logits = template(images, masks)(np.array(Image.open(images[0])))
    assert logits.shape == (2, 10, 14) and logits.dtype == np.float32
    truth = np.array(Image.open(masks[0]))[2::4, 2::4]
    right = logits.argmax(0)[1:] == truth[1:]
    assert right.mean() > 0.8
