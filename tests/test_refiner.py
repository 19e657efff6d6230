"""`DDPSRefiner.refine` as users call it: any input, any size, reproducible, and every keyword does what it says."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import InferenceConfig, LabelSpace, LogitsNetwork, ScheduleConfig
from ddps.diffusion.samplers import Step
from ddps.diffusion.schedules import network_steps
from ddps.errors import InputError
from ddps.models.slot_unet import BLANK
from ddps.outputs import Refinement
from ddps.predictions import load_prediction
from ddps.refiner import build_network
from ddps.slots import plan_slots

CONFIG = DDPSConfig(
    network=LogitsNetwork(image_widths=(8, 8, 12, 12), slot_widths=(4, 4, 6, 6), max_slots=6),
    inference=InferenceConfig(steps=2, tile=128, overlap=16),
)
SIZES = (1, 2, 7, 31, 64, 97)


def make(config: DDPSConfig = CONFIG, noise: float = 0.1) -> DDPSRefiner:
    """Untrained weights return the prediction as it is, which would hide faults: noise makes them do something."""
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return DDPSRefiner(config, network, device="cpu")


@pytest.fixture(scope="module")
def refiner() -> DDPSRefiner:
    return make()


@pytest.fixture(scope="module")
def identity() -> DDPSRefiner:
    return make(noise=0.0)


def image_of(height: int = 48, width: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def logits_of(classes: int = 4, height: int = 12, width: int = 10, seed: int = 1) -> Tensor:
    return 2 * torch.randn(classes, height, width, generator=torch.Generator().manual_seed(seed))


def resized(logits: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(logits[None], (height, width), mode="bilinear")[0].softmax(0)


def same(a: Refinement, b: Refinement) -> bool:
    """Bit for bit."""
    arrays = ("labels", "probs", "uncertainty", "changed")
    return all(torch.equal(torch.as_tensor(getattr(a, n)), torch.as_tensor(getattr(b, n))) for n in arrays)


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("height", SIZES)
def test_every_size(refiner, height, width):
    logits = logits_of(3, -(-height // 4), -(-width // 4))
    out = refiner.refine(image_of(height, width), logits, steps=1, tile=64)
    assert out.labels.shape == out.uncertainty.shape == out.changed.shape == (height, width)
    assert out.probs.shape == (3, height, width) and out.probs.isfinite().all()
    torch.testing.assert_close(out.probs.sum(0), torch.ones(height, width), rtol=0, atol=1e-5)
    assert torch.equal(out.labels, out.probs.argmax(0))
    assert out.uncertainty.min() >= 0 and out.uncertainty.max() <= 1


@pytest.mark.parametrize("classes", [1, 2, 5, 200])
def test_untrained_weights_return_the_prediction(identity, classes):
    logits = logits_of(classes)
    probs = resized(logits, 48, 40) if classes > 1 else None
    out = identity.refine(image_of(), logits)
    if probs is None:
        foreground = F.interpolate(logits[None], (48, 40), mode="bilinear")[0].sigmoid()
        probs = torch.cat([1 - foreground, foreground])
    assert (out.probs - probs).abs().max() < 0.01


def test_tiled_is_whole_for_an_untrained_network(identity):
    image, logits = image_of(150, 200), logits_of(5, 38, 50)
    whole, tiled = identity.refine(image, logits, tile=256), identity.refine(image, logits, tile=64)
    assert (whole.probs - tiled.probs).abs().max() < 0.01
    assert (whole.labels != tiled.labels).float().mean() < 0.01


def test_a_sigmoid_foreground_is_two_classes(refiner):
    logits = logits_of(1)
    one = refiner.refine(image_of(), logits)
    two = refiner.refine(image_of(), torch.cat([torch.zeros_like(logits), logits]))
    assert one.probs.shape[0] == 2 and same(one, two)


def test_of_200_classes_those_without_a_slot_keep_their_proportions(refiner):
    logits = logits_of(200)
    before = resized(logits, 48, 40)
    out = refiner.refine(image_of(), logits)
    shares = load_prediction(logits, (48, 40)).window(0, 0, 48, 40).shares()
    plan = plan_slots(shares.mass, shares.peak, 6)
    outside = torch.ones(200, dtype=torch.bool)
    outside[plan.classes] = False
    assert plan.other and int(outside.sum()) == 195
    rest, was = out.probs[outside], before[outside]
    torch.testing.assert_close(rest / rest.sum(0), was / was.sum(0), rtol=1e-3, atol=1e-5)
    assert (rest.sum(0) - was.sum(0)).abs().max() > 0.05
    torch.testing.assert_close(out.probs.sum(0), torch.ones(48, 40), rtol=0, atol=1e-5)


def test_what_is_sure_everywhere_is_left_alone(refiner):
    calls: list[Step] = []
    logits = torch.zeros(3, 48, 40)
    logits[1, :, :20], logits[2, :, 20:] = 50, 50
    out = refiner.refine(image_of(), logits, callback=calls.append)
    assert calls == [] and not out.changed.any() and torch.equal(out.labels, logits.argmax(0))


def test_the_same_seed_gives_the_same_result_whatever_shares_the_batch(refiner):
    sizes = [(48, 40), (33, 70), (64, 64)]
    images = [image_of(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    logits = [logits_of(k, seed=k) for k in (4, 2, 9)]
    alone = [refiner.refine(i, p, seed=3, tile=64) for i, p in zip(images, logits, strict=True)]
    together = refiner.refine(images, logits, seed=3, tile=64)
    backwards = refiner.refine(images[::-1], logits[::-1], seed=3, tile=64)[::-1]
    for one, two, three, size in zip(alone, together, backwards, sizes, strict=True):
        assert same(one, two) and same(one, three) and one.labels.shape == size


def test_another_seed_gives_another_result(refiner):
    a, b = (refiner.refine(image_of(), logits_of(), seed=seed) for seed in (0, 1))
    assert not torch.equal(a.probs, b.probs) and not torch.equal(a.labels, b.labels)


def test_threads_do_not_disturb_each_other(refiner):
    inputs = [(image_of(seed=s), logits_of(seed=s)) for s in range(8)]
    expected = [refiner.refine(*pair) for pair in inputs]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda pair: refiner.refine(*pair), inputs))
    assert all(same(a, e) for a, e in zip(answers, expected, strict=True))


def test_global_random_numbers_are_left_alone(refiner):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    refiner.refine(image_of(), logits_of(), num_samples=2, sampler="posterior")
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], numpy_before)


def test_inputs_are_never_changed(refiner):
    image = (image_of().permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    labels = logits_of(4, 48, 40).argmax(0)
    labels[:5] = 255
    for prediction in (logits_of(), logits_of().numpy(), logits_of().softmax(0), labels, labels.numpy()):
        for one in (image_of(), image):
            copies = [torch.tensor(x) if isinstance(x, np.ndarray) else x.clone() for x in (one, prediction)]
            out = refiner.refine(one, prediction, num_classes=4, return_trajectory=True)
            out.labels[:], out.probs[:], out.uncertainty[:] = 0, 0, 0
            assert torch.equal(torch.as_tensor(one), copies[0]) and torch.equal(torch.as_tensor(prediction), copies[1])


@pytest.mark.parametrize("container", [np.ndarray, Tensor])
def test_containers_out_are_those_that_came_in(refiner, container):
    prediction = logits_of() if container is Tensor else logits_of().numpy()
    out = refiner.refine(image_of(), prediction, return_trajectory=True)
    for array in (out.labels, out.probs, out.uncertainty, out.changed, *out.trajectory):
        assert isinstance(array, container)
    types = [str(a.dtype).removeprefix("torch.") for a in (out.labels, out.probs, out.uncertainty, out.changed)]
    assert types == ["int64", "float32", "float32", "bool"]


def test_what_comes_out_can_be_changed_and_trained_with(refiner):
    out = refiner.refine(image_of(), logits_of())
    out.labels.add_(1)
    out.uncertainty.mul_(2)
    weight = torch.ones((), requires_grad=True)
    (weight * out.probs * out.uncertainty).sum().backward()
    assert weight.grad is not None


def test_batches_as_tensors_and_a_batch_of_one(refiner):
    images, logits = torch.stack([image_of(seed=s) for s in (0, 1)]), torch.stack([logits_of(seed=s) for s in (1, 2)])
    alone = refiner.refine(images[1], logits[1])
    for batch in (refiner.refine(images, logits), refiner.refine(list(images), list(logits))):
        assert isinstance(batch, list) and len(batch) == 2 and same(batch[1], alone)
    assert isinstance(refiner.refine(images, logits.numpy())[0].labels, np.ndarray)
    assert same(refiner.refine(images[1], logits[1:]), alone)


@pytest.mark.parametrize("as_numpy", [True, False])
def test_void_stays_void(refiner, as_numpy):
    labels = logits_of(3, 48, 40).argmax(0)
    labels[10:20, 5:30] = 255
    void = labels == 255
    prediction = labels.numpy() if as_numpy else labels
    out = refiner.refine(image_of(), prediction, return_trajectory=True)
    for array in (out.labels, *out.trajectory):
        assert torch.equal(torch.as_tensor(array) == 255, void)
    assert not torch.as_tensor(out.changed)[void].any() and torch.as_tensor(out.changed).any()
    negative = torch.where(void, -1, labels)
    assert torch.equal(refiner.refine(image_of(), negative, ignore_index=-1).labels == -1, void)


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_changed_is_where_the_answer_differs_from_the_segmentors(refiner, kind):
    prediction = logits_of() if kind == "logits" else logits_of().argmax(0)
    own = load_prediction(prediction, (48, 40)).argmax()
    out = refiner.refine(image_of(), prediction)
    assert torch.equal(out.changed, out.labels != own) and 0 < out.changed.float().mean() < 1


def test_a_label_map_may_have_more_classes_than_it_shows(refiner):
    labels = logits_of(3, 48, 40).argmax(0)
    out = refiner.refine(image_of(), labels, num_classes=9)
    assert out.probs.shape[0] == 9 and len(out.palette) == 9
    assert (refiner.refine(image_of(), torch.zeros(48, 40, dtype=torch.int64)).labels == 0).all()


@pytest.mark.parametrize(
    ("steps", "samples", "tile"), [(1, 1, 128), (5, 1, 128), (20, 1, 128), (3, 2, 128), (2, 1, 64)]
)
def test_steps_samples_and_tiles_make_passes_of_the_network(refiner, steps, samples, tile):
    calls: list[Step] = []
    image = image_of(100, 40)
    refiner.refine(image, logits_of(), steps=steps, num_samples=samples, tile=tile, callback=calls.append)
    tiles = 2 if tile == 64 else 1
    assert [call.i for call in calls] == network_steps(20, steps) * samples * tiles
    assert [call.index for call in calls] == list(range(steps)) * samples * tiles


def test_defaults_come_from_the_config(refiner):
    assert same(
        refiner.refine(image_of(), logits_of()), refiner.refine(image_of(), logits_of(), steps=2, sampler="free")
    )
    config = replace(CONFIG, inference=replace(CONFIG.inference, sampler="posterior", steps=4096))
    calls: list[Step] = []
    out = make(config).refine(image_of(), logits_of(), callback=calls.append)
    assert len(calls) == 20 and same(out, refiner.refine(image_of(), logits_of(), steps=20, sampler="posterior"))


def test_samplers(refiner):
    free, posterior = (refiner.refine(image_of(), logits_of(), steps=4, sampler=s) for s in ("free", "posterior"))
    assert not same(free, posterior)
    calls: list[Step] = []
    single = refiner.refine(
        image_of(), logits_of(), sampler="single", steps=4, callback=calls.append, return_trajectory=True
    )
    assert [call.i for call in calls] == [0] and len(single.trajectory) == 1
    assert same(single, refiner.refine(image_of(), logits_of(), sampler="free", steps=1))


def test_an_absorbing_kernel():
    config = replace(CONFIG, schedule=ScheduleConfig(kind="cosine", kernel="absorbing"))
    calls: list[Step] = []
    make(config).refine(image_of(), logits_of(3), steps=4, sampler="posterior", callback=calls.append)
    assert (calls[0].mask == 3).float().mean() > 0.9 and (calls[-1].mask == 3).float().mean() < 0.1


def test_more_samples_depend_less_on_the_seed(refiner):
    def spread(samples: int) -> float:
        a, b = (refiner.refine(image_of(), logits_of(), seed=s, num_samples=samples).probs for s in (0, 1))
        return float((a - b).abs().mean())

    assert 0 < spread(12) < 0.6 * spread(1)


def test_guidance_moves_away_from_the_answer_without_the_image(refiner):
    def first(image: Tensor, scale: float) -> Tensor:
        calls: list[Step] = []
        refiner.refine(image, logits_of(), guidance_scale=scale, callback=calls.append)
        return calls[0].logits

    none, one, three = (first(image_of(), scale) for scale in (0.0, 1.0, 3.0))
    assert (one - none).abs().max() > 0.01
    torch.testing.assert_close(three - none, 3 * (one - none), rtol=1e-3, atol=1e-3)
    blank = torch.full((3, 48, 40), BLANK)
    torch.testing.assert_close(first(blank, 3.0), first(blank, 0.0), rtol=1e-3, atol=1e-3)


def test_trajectory_holds_the_label_map_of_every_step(refiner):
    out = refiner.refine(image_of(), logits_of(), steps=5, return_trajectory=True)
    assert len(out.trajectory) == 5 and all(t.shape == (48, 40) and t.dtype == torch.int64 for t in out.trajectory)
    assert (out.trajectory[-1] == out.labels).float().mean() > 0.6
    assert any(not torch.equal(a, out.trajectory[-1]) for a in out.trajectory[:-1])
    assert refiner.refine(image_of(), logits_of()).trajectory is None


def test_probabilities_only_where_wanted(refiner):
    out = refiner.refine(image_of(), logits_of(), return_probs=False)
    assert out.probs is None and torch.equal(out.labels, refiner.refine(image_of(), logits_of()).labels)


def test_mix_is_the_share_of_the_refiner(refiner):
    own, alone = resized(logits_of(), 48, 40), refiner.refine(image_of(), logits_of()).probs
    for mix in (0.0, 0.4):
        config = replace(CONFIG, inference=replace(CONFIG.inference, mix=mix))
        pooled = own ** (1 - mix) * alone**mix
        expected = pooled / pooled.sum(0)
        torch.testing.assert_close(make(config).refine(image_of(), logits_of()).probs, expected, rtol=0, atol=5e-3)


def test_a_refiner_for_given_classes():
    colours = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    refiner = make(replace(CONFIG, labels=LabelSpace(3, ("a", "b", "c"), colours)))
    out = refiner.refine(image_of(), logits_of(3))
    assert out.names == ("a", "b", "c") and tuple(map(tuple, out.palette)) == colours
    for wrong in (logits_of(4), torch.full((48, 40), 3)):
        with pytest.raises(InputError):
            refiner.refine(image_of(), wrong)
    assert refiner.refine(image_of(), torch.zeros(48, 40, dtype=torch.int64)).probs.shape[0] == 3


def test_answers_after_some_steps_of_one_chain(refiner):
    labels = logits_of(4, 48, 40).argmax(0)
    labels[:5] = 255
    for prediction in (logits_of(), labels.numpy()):
        plain = refiner.refine(image_of(), prediction, steps=4)
        out = refiner.refine(image_of(), prediction, steps=4, after=(1, 3, 4))
        assert same(out, plain) and list(out.after) == [1, 3, 4] and plain.after == {}
        assert same(out.after[4], plain) and not same(out.after[1], plain)
        for answer in out.after.values():
            assert type(answer.labels) is type(prediction) and answer.probs.shape == plain.probs.shape
            if isinstance(prediction, np.ndarray):
                assert ((answer.labels == 255) == (labels.numpy() == 255)).all()
    images, predictions = [image_of(seed=s) for s in (0, 1)], [logits_of(seed=s) for s in (0, 1)]
    for answer, image, prediction in zip(
        refiner.refine(images, predictions, steps=3, after=(2,)), images, predictions, strict=True
    ):
        assert same(answer.after[2], refiner.refine(image, prediction, steps=3, after=(2,)).after[2])
    with pytest.raises(InputError):
        refiner.refine(image_of(), logits_of(), steps=2, after=(3,))


def test_the_fast_preset_takes_fewer_slots():
    universal, slots = DDPSRefiner.from_pretrained(device="cpu"), []
    for preset in ("default", "fast"):
        calls: list[Step] = []
        universal.refine(image_of(), logits_of(12), preset=preset, callback=calls.append)
        slots.append(calls[0].logits.shape[1])
    assert slots == [8, 7]


def test_a_chain_that_ends_early_answers_for_all_its_steps(refiner):
    calls: list[Step] = []
    out = refiner.refine(
        image_of(), logits_of(), steps=8, early_exit=0.9, after=(1, 5), return_trajectory=True, callback=calls.append
    )
    assert len(calls) == 2 and len(out.trajectory) == 8
    assert same(out.after[5], out) and not same(out.after[1], out)
    assert all(torch.equal(step, out.trajectory[1]) for step in out.trajectory[2:])
    every = refiner.refine(image_of(), logits_of(), steps=8, callback=calls.append)
    assert len(calls) == 10 and not same(every, out)
    with pytest.raises(InputError, match="early_exit from 0 to below 1"):
        refiner.refine(image_of(), logits_of(), early_exit=1.0)


def test_a_compiled_refiner_answers_the_same():
    torch._dynamo.reset()
    image, logits = image_of(33, 47), logits_of(5)
    compiled, plain = (one.refine(image, logits).probs for one in (make().compile(backend="eager"), make()))
    assert (compiled - plain).abs().max() < 1e-3
