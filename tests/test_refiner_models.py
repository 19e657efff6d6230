"""`DDPSRefiner` beyond one call: saving and loading, precisions, the paper's feature-conditioned model, and errors."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import FeaturesNetwork, InferenceConfig, LabelSpace, LogitsNetwork, ScheduleConfig
from ddps.diffusion.samplers import Step
from ddps.errors import InputError
from ddps.refiner import build_network

LOGITS = DDPSConfig(
    network=LogitsNetwork(image_widths=(8, 8, 12, 12), slot_widths=(4, 4, 6, 6), max_slots=6),
    inference=InferenceConfig(steps=2, tile=128, overlap=16),
)
FEATURES = DDPSConfig(
    network=FeaturesNetwork(
        in_channels=(4, 6), channels=8, embed_dim=3, dim=16, dim_mults=(1, 1, 1), out_dim=8, num_classes=5
    ),
    inference=InferenceConfig(steps=3),
)


def make(config: DDPSConfig, noise: float = 0.1, dtype: torch.dtype = torch.float32) -> DDPSRefiner:
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return DDPSRefiner(config, network, device="cpu", dtype=dtype)


@pytest.fixture(scope="module")
def refiner() -> DDPSRefiner:
    return make(LOGITS)


@pytest.fixture(scope="module")
def paper() -> DDPSRefiner:
    return make(FEATURES)


def image_of(height: int = 48, width: int = 40) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def logits_of(classes: int = 4) -> Tensor:
    return 2 * torch.randn(classes, 12, 10, generator=torch.Generator().manual_seed(1))


def features_of(height: int = 12, width: int = 10) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = ((1, 4, height, width), (1, 6, -(-height // 2), -(-width // 2)))
    return [torch.randn(size, generator=generator) for size in sizes]


# Saving and loading


@pytest.mark.parametrize("config", [LOGITS, FEATURES], ids=["logits", "features"])
def test_what_is_saved_is_loaded(config, tmp_path):
    config = replace(config, name="mine", labels=LabelSpace(5, ("a", "b", "c", "d", "e")))
    saved = make(config)
    folder = saved.save_pretrained(tmp_path / "model")
    loaded = DDPSRefiner.from_pretrained(folder, device="cpu", dtype=torch.float32)
    assert loaded.config == config and loaded.source == str(tmp_path / "model")
    state, expected = loaded.network.state_dict(), saved.network.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in state)
    arguments = (image_of(), logits_of(5)) if config.network.conditioning == "logits" else (image_of(),)
    keywords = {} if config.network.conditioning == "logits" else {"features": features_of()}
    assert torch.equal(loaded.refine(*arguments, **keywords).probs, saved.refine(*arguments, **keywords).probs)


def test_saved_in_half_at_half_the_size_and_nearly_the_same(refiner, tmp_path):
    whole = refiner.save_pretrained(tmp_path / "whole")
    half = refiner.save_pretrained(tmp_path / "half", half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.75 * sizes[1]
    loaded = DDPSRefiner.from_pretrained(half, device="cpu")
    assert all(p.dtype == torch.float32 for p in loaded.network.parameters())
    # One pass: over several, a pixel that flips changes the noise of the next.
    a, b = (r.refine(image_of(), logits_of(), sampler="single").probs for r in (loaded, refiner))
    assert 0 < (a - b).abs().max() < 0.05


def test_saving_does_not_change_the_refiner(refiner, tmp_path):
    before = refiner.refine(image_of(), logits_of()).probs
    refiner.save_pretrained(tmp_path / "model", half=True)
    assert torch.equal(refiner.refine(image_of(), logits_of()).probs, before)


def test_the_network_is_for_inference(refiner):
    assert not refiner.network.training and not any(p.requires_grad for p in refiner.network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision(dtype):
    full, reduced = (
        make(LOGITS, 0.05, t).refine(image_of(), logits_of(), sampler="single").probs for t in (torch.float32, dtype)
    )
    assert reduced.dtype == torch.float32 and 0 < (full - reduced).abs().max() < 0.1
    torch.testing.assert_close(reduced.sum(0), torch.ones(48, 40), rtol=0, atol=1e-5)


# The paper's model


@pytest.mark.parametrize(("height", "width"), [(48, 40), (1, 1), (37, 50)])
def test_features_to_a_mask_at_image_size(paper, height, width):
    out = paper.refine(image_of(height, width), features=features_of(-(-height // 4), -(-width // 4)))
    assert out.labels.shape == out.uncertainty.shape == out.changed.shape == (height, width)
    assert out.probs.shape == (5, height, width) and torch.equal(out.labels, out.probs.argmax(0))
    torch.testing.assert_close(out.probs.sum(0), torch.ones(height, width), rtol=0, atol=1e-5)
    assert not out.changed.any()


def test_features_with_a_seed(paper):
    before = torch.get_rng_state()
    a, b, c = (paper.refine(image_of(), features=features_of(), seed=seed).probs for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("sampler", "times"), [("free", [0, 5, 10, 19]), ("posterior", [0, 5, 10, 19]), ("single", [0])]
)
def test_features_with_each_sampler(paper, sampler, times):
    calls: list[Step] = []
    features = features_of()
    before = [f.clone() for f in features]
    out = paper.refine(
        image_of(), features=features, sampler=sampler, steps=4, callback=calls.append, return_trajectory=True
    )
    assert [call.i for call in calls] == times and len(out.trajectory) == len(times)
    assert torch.equal(out.trajectory[-1], out.labels)
    probs = F.interpolate(calls[-1].logits, (48, 40), mode="bilinear")[0].softmax(0)
    torch.testing.assert_close(out.probs, probs)
    assert all(torch.equal(f, b) for f, b in zip(features, before, strict=True))


def test_features_with_an_absorbing_kernel():
    calls: list[Step] = []
    paper = make(replace(FEATURES, schedule=ScheduleConfig(kernel="absorbing")))
    paper.refine(image_of(), features=features_of(), callback=calls.append, return_probs=False)
    assert (calls[0].mask == 5).all() and len(calls) == 3


def test_features_without_probabilities(paper):
    assert paper.refine(image_of(), features=features_of(), return_probs=False).probs is None


# Errors

BAD_CALLS = [
    {"steps": 0},
    {"steps": 21},
    {"steps": 2.5},
    {"steps": True},
    {"sampler": "euler"},
    {"num_samples": 0},
    {"guidance_scale": -1.0},
    {"guidance_scale": float("nan")},
    {"guidance_scale": "much"},
    {"tile": 8},
    {"tile": 100.5},
    {"seed": -1},
    {"seed": "today"},
    {"kind": "mask"},
    {"kind": "labels"},
    {"num_classes": 7},
    {"features": features_of()},
]


def assert_one_line(error: InputError) -> None:
    said = str(error)
    assert "\n" not in said and said.startswith("expected ") and "; got " in said and "; try " in said


@pytest.mark.parametrize("keywords", BAD_CALLS, ids=lambda k: "-".join(f"{n}" for n in k))
def test_bad_keywords(refiner, keywords):
    with pytest.raises(InputError) as caught:
        refiner.refine(image_of(), logits_of(), **keywords)
    assert_one_line(caught.value)


def test_bad_inputs(refiner):
    nothing = torch.full((4, 12, 10), float("nan"))
    bad = [
        (image_of(), None),
        (image_of(), nothing),
        (image_of(), [logits_of()]),
        (torch.rand(48, 40, 3), logits_of()),
        ("missing.jpg", logits_of()),
        ([image_of()] * 2, [logits_of()]),
        (torch.stack([image_of()] * 2), logits_of()[None]),
        ([image_of()], logits_of()[0]),
        ([image_of()], None),
    ]
    for image, prediction in bad:
        with pytest.raises(InputError) as caught:
            refiner.refine(image, prediction)
        assert_one_line(caught.value)


def test_bad_calls_of_the_papers_model(paper):
    first, second = features_of()
    for keywords in (
        {},
        {"features": [first]},
        {"features": [second, first]},
        {"features": features_of(), "prediction": logits_of(5), "num_classes": 4},
        {"features": [torch.cat([f, f]) for f in features_of()]},
    ):
        with pytest.raises(InputError) as caught:
            paper.refine(image_of(), **keywords)
        assert_one_line(caught.value)
    with pytest.raises(InputError):
        paper.refine([image_of()] * 2, features=features_of())


def test_bad_devices_dtypes_and_sources():
    network = build_network(LOGITS)
    for keywords in ({"device": "toaster"}, {"device": "cuda:99"}, {"dtype": torch.int8}):
        with pytest.raises(InputError) as caught:
            DDPSRefiner(LOGITS, network, **keywords)
        assert_one_line(caught.value)
    with pytest.raises(InputError) as caught:
        DDPSRefiner.from_pretrained("no such model")
    assert_one_line(caught.value)


def test_features_with_the_segmentors_own_prediction(paper):
    classes = paper.config.network.num_classes
    own = torch.randn(classes, 12, 10, generator=torch.Generator().manual_seed(3))
    alone = paper.refine(image_of(), features=features_of())
    both = paper.refine(image_of(), own, features=features_of())
    assert torch.equal(both.labels, alone.labels) and not alone.changed.any()
    shown = F.interpolate(own[None], both.labels.shape, mode="bilinear", align_corners=False)[0].argmax(0)
    assert torch.equal(both.changed, both.labels != shown)
    with pytest.raises(InputError, match=f"expected a prediction over {classes} classes"):
        paper.refine(image_of(), own[:-1], features=features_of())
