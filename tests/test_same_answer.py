"""The same answer every time: whatever else runs, and in whatever form a prediction comes."""

import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ddps import DDPSRefiner
from ddps.diffusion.schedules import make_schedule
from ddps.outputs import Refinement
from ddps.settings import Settings
from ddps.tile_chain import TileChain

from .conftest import TINY, make_tiny_refiner
from .scenes import FEATURES, at_image_size, features, same, scene


@pytest.fixture(scope="module")
def universal() -> DDPSRefiner:
    return DDPSRefiner.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def paper() -> DDPSRefiner:
    return make_tiny_refiner(FEATURES)


# Threads


@pytest.fixture
def hasty():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(call, arguments: list, threads: int = 8) -> list:
    """`call` of all arguments in threads that start together."""
    gate = threading.Barrier(threads)

    def work(index: int) -> list:
        gate.wait()
        return [call(argument) for argument in arguments[index::threads]]

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(work, range(threads)))
    return [parts[index % threads][index // threads] for index in range(len(arguments))]


def test_eight_threads_on_one_refiner_answer_as_one_does(universal, tmp_path, hasty):
    image, logits = scene()
    Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / "image.png")
    np.savez(tmp_path / "logits.npz", logits=logits.numpy())
    calls = [{"image": scene(seed=seed)[0], "prediction": scene(seed=seed)[1], "seed": seed} for seed in range(8)]
    calls += [
        {"image": tmp_path / "image.png", "prediction": tmp_path / "logits.npz"},
        {"image": image, "prediction": logits.argmax(0), "num_classes": 4},
        {"image": image, "prediction": logits, "num_samples": 2, "steps": 3, "sampler": "posterior"},
        {"image": image, "prediction": logits, "guidance_scale": 1.5},
        {"image": image, "prediction": logits.softmax(0).numpy(), "preset": "fast"},
        {"image": [image, image], "prediction": [logits, -logits]},
        {"image": scene(70, 150)[0], "prediction": scene(70, 150)[1], "tile": 64},
        {"image": image, "prediction": logits, "steps": 4, "return_trajectory": True, "after": (2,)},
    ]

    def answer(call: dict) -> list[Refinement]:
        answers = universal.refine(**call)
        return answers if isinstance(answers, list) else [answers]

    expected = [answer(call) for call in calls]
    for found, alone in zip(at_once(answer, calls), expected, strict=True):
        assert all(same(one, other) for one, other in zip(found, alone, strict=True))
        for one, other in zip(found[0].trajectory or (), alone[0].trajectory or (), strict=True):
            assert torch.equal(one, other)


def test_eight_threads_on_one_of_the_papers_models(paper, hasty):
    """Its network is folded for one number of steps at a time; threads ask for different ones."""
    calls = [(seed, 1 + seed % 4) for seed in range(16)]

    def answer(call: tuple[int, int]) -> Refinement:
        refined = paper.refine(scene()[0], features=features(call[0]), steps=call[1], seed=call[0])
        assert isinstance(refined, Refinement)
        return refined

    expected = [answer(call) for call in calls]
    assert all(same(one, other) for one, other in zip(at_once(answer, calls), expected, strict=True))


# Batches of the paper's models; those of plug-in refiners are in test_refiner.py


def test_what_shares_a_batch_changes_no_bit_of_the_papers_models(paper):
    images, maps = [scene(seed=seed)[0] for seed in range(3)], [features(seed) for seed in range(3)]
    alone = [paper.refine(image, features=its, seed=5) for image, its in zip(images, maps, strict=True)]
    together = paper.refine(images, features=maps, seed=5)
    stacked = paper.refine(
        torch.stack(images), features=[torch.cat(level) for level in zip(*maps, strict=True)], seed=5
    )
    backwards = paper.refine(images[::-1], features=maps[::-1], seed=5)[::-1]
    for answers in zip(alone, together, stacked, backwards, strict=True):
        assert all(same(answers[0], other) for other in answers[1:])


# Kinds and containers


def assert_agree(one: Refinement, other: Refinement) -> None:
    """Equal but for rounding: where it decides between two classes, what follows differs there."""
    assert (one.probs - other.probs).abs().mean() < 1e-3 and (one.labels == other.labels).float().mean() > 0.998


def test_log_probabilities_are_logits(universal):
    image, logits = scene()
    assert_agree(universal.refine(image, logits), universal.refine(image, logits.log_softmax(0), kind="logits"))


def test_probabilities_are_the_softmax_of_logits_where_nothing_is_resized(universal):
    image, logits = scene()
    full = at_image_size(logits, image)
    assert_agree(universal.refine(image, full), universal.refine(image, full.softmax(0)))
    # coarser ones differ between the pixels: logits are resized as logits, probabilities as probabilities
    coarse = (universal.refine(image, prediction).labels for prediction in (logits, logits.softmax(0)))
    assert torch.ne(*coarse).float().mean() > 0.002


def test_logits_at_image_size_are_the_coarse_ones(universal):
    image, logits = scene()
    assert_agree(universal.refine(image, logits), universal.refine(image, at_image_size(logits, image)))


def test_a_label_map_is_the_same_in_every_form(universal, tmp_path):
    image, logits = scene(classes=3)
    labels = at_image_size(logits, image).argmax(0)
    labels[:4] = 255
    numbers = labels.numpy().astype(np.uint8)
    picture = Image.fromarray(numbers)
    picture.save(tmp_path / "labels.png")
    np.save(tmp_path / "labels.npy", numbers)
    palette = picture.convert("P")
    palette.putdata(numbers.flatten().tolist())
    forms = [numbers, numbers.astype(np.int64), numbers.astype(np.uint16), labels, labels.int(), picture, palette]
    forms += [tmp_path / "labels.png", tmp_path / "labels.npy", np.asfortranarray(numbers), numbers[::-1][::-1]]
    expected = universal.refine(image, labels, num_classes=3)
    for form in forms:
        assert same(universal.refine(image, form, num_classes=3), expected), type(form)


def test_a_mask_of_booleans_is_a_label_map_of_two(universal):
    image, logits = scene(classes=2)
    mask = at_image_size(logits, image).argmax(0)
    expected = universal.refine(image, mask, num_classes=2)
    for form in (mask.bool(), mask.bool().numpy(), mask.numpy().astype(np.uint8)):
        assert same(universal.refine(image, form, num_classes=2), expected)


def test_one_hot_probabilities_are_certain_and_a_label_map_is_not(universal):
    """They need not agree: who says 1 of a class leaves nothing to refine, who gives labels has not said how sure."""
    image, logits = scene()
    labels = at_image_size(logits, image).argmax(0)
    certain = universal.refine(image, F.one_hot(labels, 4).permute(2, 0, 1).float())
    assert torch.equal(certain.labels, labels) and not certain.changed.any() and (certain.uncertainty == 0).all()
    assert universal.refine(image, labels, num_classes=4).changed.any()


def test_numpy_torch_and_files_give_the_same_bits(universal, tmp_path):
    image, logits = scene()
    pixels = (image.permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.savez(tmp_path / "logits.npz", logits=logits.numpy())
    backwards = np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1]
    images = [pixels, torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels), tmp_path / "image.png"]
    predictions = [logits, logits.numpy(), tmp_path / "logits.npz", logits.double(), np.asfortranarray(logits.numpy())]
    expected = universal.refine(pixels, logits)
    for one in (*images, backwards):
        for other in predictions:
            assert same(universal.refine(one, other), expected)


# Classes


def test_other_ids_of_the_classes_permute_the_answer_bit_for_bit(universal):
    """Slots go by how much a class shows, not by its id: the slots, and so the noise, are the same."""
    image, logits = scene(96, 112, 5)
    labels = at_image_size(logits, image).argmax(0)
    counts = labels.flatten().bincount(minlength=5)
    assert len(set(counts.tolist())) == 5
    order = torch.tensor([3, 0, 4, 2, 1])  # class `order[k]` is called k
    one, other = (universal.refine(image, ids, num_classes=5) for ids in (labels, order.argsort()[labels]))
    assert torch.equal(other.probs, one.probs[order]) and torch.equal(other.uncertainty, one.uncertainty)
    decided = one.uncertainty > 0  # of two that are equally likely, the lower id is taken
    assert torch.equal(order[other.labels][decided], one.labels[decided])
    assert one.changed.any()


def test_other_ids_of_more_classes_than_slots_permute_the_labels(universal):
    """What shares a slot goes to the class that is near, whatever its id."""
    image, logits = scene(120, 136, 14)
    labels = at_image_size(logits, image).argmax(0)
    counts = labels.flatten().bincount(minlength=14)
    assert len(set(counts.tolist())) == 14 and (counts > 0).all()
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    one, other = (universal.refine(image, ids, num_classes=14) for ids in (labels, order.argsort()[labels]))
    assert (other.probs - one.probs[order]).abs().max() < 1e-5
    assert (order[other.labels] == one.labels).float().mean() > 0.999 and one.changed.float().mean() > 0.02


def test_other_ids_of_logits_permute_the_answer_but_for_the_order_of_sums(universal):
    image, logits = scene(96, 112, 5)
    order = torch.tensor([3, 0, 4, 2, 1])
    one, other = universal.refine(image, logits), universal.refine(image, logits[order])
    assert (other.probs - one.probs[order]).abs().max() < 1e-3
    assert (order[other.labels] == one.labels).float().mean() > 0.999


def test_other_slots_permute_the_answer_in_distribution():
    """In another order the slots meet other noise; the mean over many chains is the same to its own spread."""
    refiner = make_tiny_refiner(replace(TINY, inference=replace(TINY.inference, steps=3)))
    settings = inspect.signature(Settings.over).parameters
    asked = {"seed": 0, "num_samples": 1, "guidance_scale": 0.0, "return_trajectory": False}
    asked = {name: asked.get(name) for name in settings if settings[name].default is inspect.Parameter.empty}
    del asked["defaults"], asked["most_steps"]
    chain = TileChain(
        refiner.network,
        make_schedule(TINY.schedule.kind, TINY.schedule.num_steps),
        TINY.schedule,
        Settings.over(refiner.config.inference, refiner.schedule.num_steps, **asked),
        torch.float32,
    )
    image, logits = scene(32, 32, 3)
    slots, order = at_image_size(logits, image).softmax(0), torch.tensor([2, 0, 1])
    chains = 48
    one = [chain.refine(image, slots, 1.0, False, range(start, start + chains))[-1] for start in (0, chains)]
    other = chain.refine(image, slots[order], 1.0, False, range(chains))[-1][order.argsort()]
    apart = (one[0] - one[1]).square().mean().sqrt()  # of two means of as many chains
    assert apart > 0 and (other - one[0]).square().mean().sqrt() < 1.5 * apart
    single = chain.refine(image, slots, 1.0, False, [0])[-1]
    assert (single - one[0]).square().mean().sqrt() > 2 * apart


# Tiles


def test_tiles_agree_with_the_whole_on_the_universal_weights(universal):
    """At the default overlap all but one pixel in a hundred."""
    generator = torch.Generator().manual_seed(4)
    image = F.interpolate(torch.rand(1, 3, 34, 64, generator=generator), (544, 1024), mode="bicubic")[0].clamp(0, 1)
    logits = F.interpolate(3 * torch.randn(1, 4, 9, 16, generator=generator), (136, 256), mode="bilinear")[0]
    whole, tiled = (universal.refine(image, logits, tile=tile, return_probs=False) for tile in (1024, 512))
    assert 0 < (whole.labels != tiled.labels).float().mean() < 0.01 and whole.changed.any()
