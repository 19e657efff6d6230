"""What a call leaves as it was: its inputs, and whatever a program has set for itself."""

import logging
import os
import random
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from ddps import DDPSRefiner, InputError
from ddps.large import refine_large
from ddps.outputs import Refinement
from ddps.stacks import refine_masks
from ddps.video import VideoRefiner

from .conftest import make_tiny_refiner
from .scenes import FEATURES, at_image_size, features, same, scene


@pytest.fixture(scope="module")
def paper() -> DDPSRefiner:
    return make_tiny_refiner(FEATURES)


def world() -> dict[str, object]:
    """Whatever of the process a library might have changed."""
    kind, keys, *rest = np.random.get_state()
    state: dict[str, object] = {
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": (kind, keys.tolist(), rest),
        "Python's random state": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default dtype": torch.get_default_dtype(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled()),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32),
        "oneDNN": torch.backends.mkldnn.enabled,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "numpy's errors": np.geterr(),
        "Pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "path": list(sys.path),
        "log": (logging.root.level, list(logging.root.handlers)),
        "recursion": sys.getrecursionlimit(),
        "threads alive": {thread.name for thread in threading.enumerate()},
    }
    return state


def test_the_process_is_left_as_it_was(paper, tmp_path):
    image, logits = scene()
    pixels = (image.permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.savez(tmp_path / "logits.npz", logits=logits.numpy())
    (tmp_path / "broken.png").write_bytes(b"nothing")
    before = world()
    # modules are imported on the way, which is none of a user's business: only what is compared counts
    universal = DDPSRefiner.from_pretrained(device="cpu")
    refined = universal.refine(tmp_path / "image.png", tmp_path / "logits.npz", num_samples=2, sampler="posterior")
    assert isinstance(refined, Refinement)
    refined.save(tmp_path / "answer.npz")
    universal.refine(image, logits.argmax(0), num_classes=4, tile=64)
    paper.refine(image, features=features())
    refine_large(universal, pixels, logits.numpy(), tmp_path / "out.npy", tile=64)
    refine_masks(universal, image, at_image_size(logits, image).argmax(0)[None] == 1)
    video = VideoRefiner(universal)
    for _ in range(2):
        video.refine(image, logits)
    universal.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError):
        universal.refine(tmp_path / "broken.png", logits)
    after = world()
    assert [name for name in before if before[name] != after[name]] == []


def test_a_refiner_works_whatever_the_process_is_set_to(tiny_refiner, tiny_model_dir):
    """Under autograd, in inference mode, with another default device: the same bits, and no graph."""
    image, logits = scene()
    expected = tiny_refiner.refine(image, logits)
    needs = tiny_refiner.refine(image.clone().requires_grad_(), logits.clone().requires_grad_())
    assert same(needs, expected) and not needs.probs.requires_grad
    with torch.inference_mode():
        assert same(tiny_refiner.refine(image, logits), expected)
    with torch.device("meta"):
        loaded = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu", dtype=torch.float32)
        there = [one.refine(image, logits) for one in (tiny_refiner, loaded)]
        assert all(answer.probs.device.type == "cpu" for answer in there)
    assert all(same(answer, expected) for answer in there)


def test_another_default_type_is_refused_rather_than_answered_otherwise(tiny_refiner, tiny_model_dir, tmp_path):
    image, logits = scene()
    calls = [
        lambda: tiny_refiner.refine(image, logits),
        lambda: DDPSRefiner.from_pretrained(tiny_model_dir),
        lambda: refine_large(tiny_refiner, image.numpy(), logits.numpy(), tmp_path / "out.npy"),
        lambda: refine_masks(tiny_refiner, image, logits > 0),
        lambda: VideoRefiner(tiny_refiner).refine(image, logits),
    ]
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            for call in calls:
                with pytest.raises(InputError, match="default type torch.float32; got torch"):
                    call()
        finally:
            torch.set_default_dtype(torch.float32)
    assert list(tmp_path.iterdir()) == []


# Inputs


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def test_inputs_may_be_read_only_and_are_never_changed(tiny_refiner, paper, tmp_path):
    image, logits = scene()
    pixels = frozen((image.permute(1, 2, 0) * 255).byte().numpy())
    labels = frozen(at_image_size(logits, image).argmax(0).numpy().astype(np.uint8))
    mapped = np.memmap(tmp_path / "logits.raw", np.float32, "w+", shape=tuple(logits.shape))
    mapped[:] = logits.numpy()
    mapped.flush()
    mapped = np.memmap(tmp_path / "logits.raw", np.float32, "r", shape=tuple(logits.shape))
    grey = frozen(pixels[..., 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of tensors over memory that may not be written
        for one in (pixels, grey, frozen(image.permute(1, 2, 0).numpy())):
            for other in (frozen(logits.numpy()), mapped, labels, frozen(logits.softmax(0).numpy().astype(np.float16))):
                tiny_refiner.refine(one, other, num_classes=4)
        refine_masks(tiny_refiner, pixels, frozen(labels[None] == 1))
        refine_large(tiny_refiner, pixels, mapped, tmp_path / "out.npy", tile=64)
    maps = features()
    copies = [level.clone() for level in maps]
    paper.refine(image, features=maps, guidance_scale=1.0)
    assert all(torch.equal(one, other) for one, other in zip(maps, copies, strict=True))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "1", "LA"])
def test_pictures_are_never_changed(tiny_refiner, mode):
    image, logits = scene()
    picture = Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy())
    picture = Image.fromarray(np.full((48, 64), 40_000, np.uint16)) if mode == "I;16" else picture.convert(mode)
    picture.info["note"] = "mine"
    before = picture.mode, picture.size, picture.tobytes(), picture.getpalette(), dict(picture.info)
    tiny_refiner.refine(picture, logits)
    assert (picture.mode, picture.size, picture.tobytes(), picture.getpalette(), dict(picture.info)) == before


def test_lists_are_never_changed(tiny_refiner):
    image, logits = scene()
    images, predictions = [image, image], [logits, logits]
    tiny_refiner.refine(images, predictions)
    assert len(images) == len(predictions) == 2 and images[0] is image and predictions[1] is logits
