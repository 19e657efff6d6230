import dataclasses
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ddps.errors import InputError
from ddps.outputs import Refinement, convert_container
from ddps.predictions import load_prediction
from ddps.visualize import default_palette


def refinement(num_classes=5, height=6, width=9, container="torch"):
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(num_classes, height, width, generator=generator).softmax(0)
    labels = probs.argmax(0)
    result = Refinement(
        labels=labels,
        probs_source=probs,
        uncertainty=1 - probs.amax(0),
        changed=labels == 1,
        palette=default_palette(num_classes),
        names=tuple(f"class {k}" for k in range(num_classes)),
        trajectory=[labels, labels],
        seconds=0.5,
    )
    return convert_container(result, None) if container == "numpy" else result


ARRAYS = ("labels", "probs", "uncertainty", "changed")


class TestContainer:
    def test_numpy_for_everything_but_torch(self):
        for like in (np.zeros(3), "a.png", Image.new("L", (2, 2)), None):
            result = convert_container(refinement(), like)
            assert all(isinstance(getattr(result, name), np.ndarray) for name in ARRAYS)
            assert all(isinstance(step, np.ndarray) for step in result.trajectory)
            assert result.labels.dtype == np.int64 and result.probs.dtype == np.float32
            assert result.uncertainty.dtype == np.float32 and result.changed.dtype == np.bool_

    def test_torch_for_torch_on_its_device(self):
        result = convert_container(refinement(container="numpy"), torch.zeros(3))
        for name in ARRAYS:
            assert torch.equal(getattr(result, name), getattr(refinement(), name))
        result = convert_container(refinement(), torch.zeros(3, device="meta"))
        assert all(getattr(result, name).device.type == "meta" for name in ARRAYS)

    def test_what_is_left_out_stays_out(self):
        bare = dataclasses.replace(refinement(), probs_source=None, trajectory=None)
        result = convert_container(bare, np.zeros(1))
        assert result.probs is None and result.trajectory is None
        assert result.names == bare.names and result.palette == bare.palette and result.seconds == 0.5


@pytest.mark.parametrize("container", ["torch", "numpy"])
class TestSave:
    def test_png_with_palette_reads_back(self, tmp_path, container):
        result = refinement(container=container)
        assert result.save(tmp_path / "mask.png") == tmp_path / "mask.png"
        with Image.open(tmp_path / "mask.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), np.asarray(result.labels))
            colours = np.asarray(mask.convert("RGB"))
        np.testing.assert_array_equal(colours, np.array(result.palette)[np.asarray(result.labels)])
        again = load_prediction(tmp_path / "mask.png", (6, 9))
        np.testing.assert_array_equal(again.argmax(), np.asarray(result.labels))

    def test_npz_reads_back_as_a_prediction(self, tmp_path, container):
        result = refinement(container=container)
        result.save(str(tmp_path / "mask.npz"))
        with np.load(tmp_path / "mask.npz", allow_pickle=False) as archive:
            assert sorted(archive.files) == ["labels", "probs", "uncertainty"]
            for name in archive.files:
                np.testing.assert_array_equal(archive[name], np.asarray(getattr(result, name)))
        again = load_prediction(tmp_path / "mask.npz", (6, 9))
        assert again.kind == "probs"
        np.testing.assert_allclose(again.probs(), np.asarray(result.probs), atol=1e-6)

    def test_npz_without_probabilities(self, tmp_path, container):
        dataclasses.replace(refinement(container=container), probs_source=None).save(tmp_path / "mask.npz")
        assert load_prediction(tmp_path / "mask.npz", (6, 9)).kind == "labels"

    def test_existing_files_and_other_types_are_refused(self, tmp_path, container):
        result = refinement(container=container)
        (tmp_path / "mask.png").write_bytes(b"old")
        with pytest.raises(InputError, match="overwrite=True"):
            result.save(tmp_path / "mask.png")
        assert (tmp_path / "mask.png").read_bytes() == b"old"
        result.save(tmp_path / "mask.png", overwrite=True)
        assert Image.open(tmp_path / "mask.png").size == (9, 6)
        for name in ("mask.jpg", "mask"):
            with pytest.raises(InputError, match=r"\.png or \.npz"):
                result.save(tmp_path / name)
        assert os.listdir(tmp_path) == ["mask.png"]


def test_masks_with_more_than_256_classes_are_16_bit(tmp_path):
    labels = torch.tensor([[0, 255, 256, 299]])
    result = dataclasses.replace(refinement(), labels=labels, probs_source=None, palette=default_palette(300))
    assert result.to_pil().mode == "I;16"
    result.save(tmp_path / "mask.png")
    assert load_prediction(tmp_path / "mask.png", (1, 4), ignore_index=-1).argmax().tolist() == labels.tolist()


@pytest.mark.parametrize("num_classes", [1, 2, 256])
def test_8_bit_masks_keep_every_id(tmp_path, num_classes):
    labels = torch.tensor([[0, num_classes - 1, 255]])
    result = dataclasses.replace(refinement(), labels=labels, palette=default_palette(num_classes))
    result.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "P" and np.asarray(mask).tolist() == labels.tolist()


class TestOverlay:
    def test_alpha_mixes_image_and_colours(self):
        result = refinement()
        image = np.full((6, 9, 3), 100, np.uint8)
        colours = np.array(result.palette)[result.labels.numpy()]
        np.testing.assert_array_equal(np.asarray(result.overlay(image, alpha=0)), image)
        np.testing.assert_array_equal(np.asarray(result.overlay(image, alpha=1)), colours)
        np.testing.assert_allclose(np.asarray(result.overlay(image)), (image + colours) / 2, atol=0.51)
        assert (image == 100).all()

    def test_any_image_that_refine_takes(self, tmp_path):
        result = refinement(container="numpy")
        array = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        expected = np.asarray(result.overlay(array))
        Image.fromarray(array).save(tmp_path / "a.png")
        for image in (tmp_path / "a.png", Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)):
            np.testing.assert_array_equal(np.asarray(result.overlay(image)), expected)

    def test_wrong_size_and_alpha(self):
        with pytest.raises(InputError, match="mask's size, 9 x 6; got 6 x 9"):
            refinement().overlay(np.zeros((9, 6, 3), np.uint8))
        with pytest.raises(InputError, match="alpha"):
            refinement().overlay(np.zeros((6, 9, 3), np.uint8), alpha=2)
