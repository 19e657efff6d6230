"""Validation measures the refiner as users will call it, on every segmentor of every set."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSConfig
from ddps.config import LabelSpace
from ddps.refiner import build_network
from ddps.training import TrainConfig
from ddps.training.sets import read_data_set
from ddps.training.validation import MIXES, UNSEEN_MIX, Validation, validate

CPU = torch.device("cpu")


def weights_of(model: DDPSConfig, noise: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = build_network(model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return network.state_dict()


def run(model: DDPSConfig, sets, noise: float = 0.0, images: int = 12) -> Validation | None:
    config = TrainConfig(data=("a",), out="run", model=model, validate_images=images)
    return validate(weights_of(model, noise), sets, config, CPU)


def test_untrained_weights_gain_and_lose_next_to_nothing(make_set, tiny_model):
    found = run(tiny_model, [read_data_set(make_set(val=2), "val", None)])
    assert found is not None and found.mix in MIXES and abs(found.score) < 1
    (report,) = found.reports
    assert report["set"] == "squares" and report["images"] == 2
    assert 20 < report["base_miou"] < 100 and report["miou"] == pytest.approx(report["base_miou"], abs=0.5)


def test_the_least_harmful_mix_wins(make_set, predict, tiny_model, tmp_path):
    folder = make_set(val=2)
    predict(folder, tmp_path / "root", "val")
    found = run(tiny_model, [read_data_set(folder, "val", tmp_path / "root")], noise=0.2)
    assert found is not None and found.mix == min(MIXES) and found.score < 0
    assert found.reports[0]["base_miou"] == pytest.approx(100) and found.reports[0]["miou"] < 100


@pytest.mark.parametrize("merge", [None, [0, 1, 1]])
def test_perfect_predictions_are_found_perfect(make_set, predict, tiny_model, tmp_path, merge):
    folder = make_set(classes=3, val=2)
    predict(folder, tmp_path / "root" / "seg", "val", merge)
    found = run(tiny_model, [read_data_set(folder, "val", tmp_path / "root")])
    assert found is not None and found.reports[0]["set"] == "squares/seg"
    # Of the boundary a little is lost where the segmentor, which knows no void, crosses into it.
    assert found.reports[0]["base_miou"] == pytest.approx(100) and found.reports[0]["base_mbiou"] > 90
    assert found.reports[0]["miou"] > 99


def test_every_segmentor_of_every_set_up_to_so_many_images(make_set, predict, tiny_model, tmp_path):
    folders = [make_set("one", val=3), make_set("two", val=1)]
    for name in ("a", "b"):
        predict(folders[0], tmp_path / "root" / "one" / name, "val")
    sets = [read_data_set(folder, "val", tmp_path / "root", several=True) for folder in folders]
    found = run(tiny_model, sets, images=2)
    assert found is not None
    assert [(r["set"], r["images"]) for r in found.reports] == [("one/a", 2), ("one/b", 2), ("two", 1)]


def test_the_models_own_mix_does_not_matter(make_set, tiny_model):
    sets = [read_data_set(make_set(val=1), "val", None)]
    half = replace(tiny_model, inference=replace(tiny_model.inference, mix=0.5))
    assert run(half, sets, noise=0.1) == run(tiny_model, sets, noise=0.1)


def test_nothing_to_validate_on(make_set, tiny_model):
    assert run(tiny_model, []) is None
    assert run(tiny_model, [read_data_set(make_set(val=1), "val", None)], images=0) is None


def save_wrong(folder, root, kind):
    """Predictions of half of the image wrong, as label maps or as probabilities."""
    root.mkdir(parents=True)
    for mask in sorted((folder / "val" / "masks").iterdir()):
        labels = np.array(Image.open(mask)) % 3
        labels[: len(labels) // 2] = (labels[: len(labels) // 2] + 1) % 3
        if kind == "labels":
            Image.fromarray(labels).save(root / mask.name)
        else:
            np.savez(root / f"{mask.stem}.npz", probs=np.eye(3)[labels].transpose(2, 0, 1) * 0.8 + 0.2 / 3)


@pytest.mark.parametrize("kind", ["labels", "probs"])
@pytest.mark.parametrize("named", [True, False])
def test_label_maps_say_nothing_about_how_far_named_classes_go_against_probabilities(
    make_set, tiny_model, tmp_path, kind, named
):
    folder = make_set(classes=3, val=2)
    save_wrong(folder, tmp_path / "root" / "seg" / "val", kind)
    network = replace(tiny_model.network, classes=3 * named, max_slots=4)
    model = replace(tiny_model, labels=LabelSpace(3), network=network)
    found = run(model, [read_data_set(folder, "val", tmp_path / "root")])
    assert found is not None and found.label_mix in MIXES
    assert found.mix == (UNSEEN_MIX if named and kind == "labels" else found.label_mix)


def test_label_maps_and_probabilities_have_a_mix_each(make_set, predict, tiny_model, tmp_path):
    folder = make_set(classes=3, val=2)
    predict(folder, tmp_path / "root" / "good", "val")
    save_wrong(folder, tmp_path / "root" / "bad" / "val", "labels")
    # noise harms perfect probabilities, and what it does to wrong labels is for those alone to say
    found = run(tiny_model, [read_data_set(folder, "val", tmp_path / "root")], noise=0.2)
    alone = {}
    for name in ("good", "bad"):
        data = read_data_set(folder, "val", tmp_path / "root")
        data.sources = [source for source in data.sources if source.name == name]
        alone[name] = run(tiny_model, [data], noise=0.2)
    assert found.mix == alone["good"].mix and found.label_mix == alone["bad"].label_mix
    assert found.score == pytest.approx((alone["good"].score + alone["bad"].score) / 2)


def test_made_up_mistakes_say_nothing_about_how_far_named_classes_go(make_set, tiny_model):
    sets = [read_data_set(make_set(classes=3, val=1), "val", None)]
    model = replace(tiny_model, labels=LabelSpace(3), network=replace(tiny_model.network, classes=3, max_slots=4))
    found = run(model, sets)
    assert found is not None and found.mix == UNSEEN_MIX and found.label_mix in MIXES
