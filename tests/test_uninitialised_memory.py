"""What memory held before decides nothing: everything that is made without contents is filled with NaN here."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import FeaturesNetwork, InferenceConfig
from ddps.large import refine_large
from ddps.stacks import refine_masks
from ddps.video import VideoRefiner

from .conftest import make_tiny_refiner

CALLS = {
    "defaults": {},
    "one step": {"steps": 1},
    "posterior": {"sampler": "posterior", "steps": 3},
    "tiles": {"tile": 64},
    "samples": {"num_samples": 2},
    "trajectory": {"return_trajectory": True},
    "after": {"after": (1,)},
}


@pytest.fixture
def garbage() -> Iterator[None]:
    """NaN in every float that torch makes without contents, and the largest number in every integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def universal() -> DDPSRefiner:
    return DDPSRefiner.from_pretrained(device="cpu")


def scene(classes: int, height: int = 90, width: int = 130):
    generator = torch.Generator().manual_seed(classes)
    image = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), (height, width), mode="bicubic")[0].clamp(0, 1)
    logits = 3 * torch.randn(1, classes, 6, 7, generator=generator)
    return image, F.interpolate(logits, (height // 3, width // 3), mode="bilinear")[0]


def forms(logits, size):
    labels = F.interpolate(logits[None], size, mode="bilinear")[0].argmax(0)
    labels[:5, :7] = 255
    return {"logits": logits, "probs": logits.softmax(0), "labels": labels}


def everything(answer) -> list[torch.Tensor]:
    found = [answer.labels, answer.probs, answer.uncertainty, answer.changed]
    found += [step.probs for step in (answer.after or {}).values()]
    found += list(answer.trajectory) if answer.trajectory is not None else []
    return [torch.as_tensor(values) for values in found]


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("kind", ["logits", "probs", "labels"])
@pytest.mark.parametrize("call", CALLS)
def test_refine(universal, garbage, classes, kind, call):
    image, logits = scene(classes)
    values = forms(logits, (90, 130))[kind]
    settings = {"kind": kind, **({"num_classes": classes} if kind == "labels" else {}), **CALLS[call]}
    answer = everything(universal.refine(image, values, **settings))
    torch.use_deterministic_algorithms(False)
    expected = everything(universal.refine(image, values, **settings))
    assert len(answer) == len(expected)
    for ours, theirs in zip(answer, expected, strict=True):
        assert torch.equal(ours, theirs) and ours.isfinite().all()


def test_a_large_image_with_its_coarse_pass(universal, garbage, tmp_path):
    image, logits = scene(6, 560, 600)
    pixels = image.mul(255).round().byte().movedim(0, -1).numpy()
    for name, values in forms(logits, (560, 600)).items():
        answer = universal.refine(image, values, num_classes=6, kind=name)
        assert all(one.isfinite().all() for one in everything(answer))
        np.save(tmp_path / "image.npy", pixels)
        np.save(tmp_path / f"{name}.npy", values.numpy())
        paths = [tmp_path / f"{name}.npy", tmp_path / f"{name}_out.npy"]
        refine_large(universal, tmp_path / "image.npy", *paths, kind=name, num_classes=6, tile=256)
        again = tmp_path / f"{name}_again.npy"
        torch.use_deterministic_algorithms(False)
        refine_large(universal, tmp_path / "image.npy", paths[0], again, kind=name, num_classes=6, tile=256)
        torch.use_deterministic_algorithms(True, warn_only=True)
        np.testing.assert_array_equal(np.load(paths[1]), np.load(again))


def test_stacks_and_video(universal, garbage):
    image, logits = scene(4)
    labels = forms(logits, (90, 130))["labels"]
    masks = torch.stack([labels == k for k in range(4)])

    def answers():
        video = VideoRefiner(universal)
        frames = [video.refine(image.roll(shift, 2), logits) for shift in (0, 3)]
        return [
            torch.as_tensor(refine_masks(universal, image, masks).masks),
            *map(torch.as_tensor, (f.probs for f in frames)),
        ]

    ours = answers()
    torch.use_deterministic_algorithms(False)
    for one, other in zip(ours, answers(), strict=True):
        assert torch.equal(one, other)


def test_the_papers_models(garbage):
    network = FeaturesNetwork(
        in_channels=(4, 6), channels=8, embed_dim=3, dim=16, dim_mults=(1, 1, 1), out_dim=8, num_classes=5
    )
    refiner = make_tiny_refiner(DDPSConfig(network=network, inference=InferenceConfig(steps=3)))
    generator = torch.Generator().manual_seed(0)
    image, logits = scene(5, 96, 128)
    maps = [torch.randn(1, c, 96 // s, 128 // s, generator=generator) for c, s in ((4, 4), (6, 8))]
    answer = everything(refiner.refine(image, logits, features=maps))
    torch.use_deterministic_algorithms(False)
    for ours, theirs in zip(answer, everything(refiner.refine(image, logits, features=maps)), strict=True):
        assert torch.equal(ours, theirs) and ours.isfinite().all()
