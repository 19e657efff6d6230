"""What a processor did to an image, undone."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import InputError
from ddps.adapters.geometry import from_mask, image_size, join_patches, proportional, upper_left
from ddps.inputs import load_image


def ramp(rows, columns):
    """Values that tell their own place in cells."""
    down, right = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return torch.stack([down, right])


def test_whole_cells_are_cut():
    values = torch.rand(3, 8, 10)
    assert torch.equal(upper_left(values, 8, 7.0), values[:, :, :7])


@pytest.mark.parametrize(("rows", "columns"), [(5.5, 9.25), (7.75, 10), (0.3, 0.5)])
def test_parts_of_cells_are_resized_in_place(rows, columns):
    found = upper_left(ramp(8, 10), rows, columns)
    height, width = -(-rows // 1), -(-columns // 1)
    assert found.shape == (2, height, width)
    wanted = ramp(int(height), int(width)) * torch.tensor([rows / height, columns / width])[:, None, None]
    assert torch.allclose(found, wanted.clamp(min=0.5), atol=1e-5)


def test_proportions():
    assert proportional((16, 16), (60, 90)) == (pytest.approx(16 * 60 / 90), 16)
    assert proportional((16, 24), (60, 90)) == (16, 24)


def test_a_pixel_mask():
    mask = torch.zeros(64, 96)
    mask[:48, :90] = 1
    assert from_mask(mask, (16, 24)) == (12, 22.5)
    with pytest.raises(InputError, match="padding on the right or below"):
        from_mask(mask.flip(0), (16, 24))
    with pytest.raises(InputError, match="padding on the right or below"):
        from_mask(torch.zeros(64, 96), (16, 24))


@pytest.mark.parametrize("axis", [-2, -1])
def test_patches_lie_where_they_were_cut(axis):
    """Of 100 pixels, in windows of 40 at a quarter of the resolution."""
    whole = torch.sin(torch.linspace(0, 6, 100))
    patches = []
    for start in (0, 30, 60):
        cells = whole[start : start + 40].reshape(10, 4).mean(1)
        shape = (1, 10, 3) if axis == -2 else (1, 3, 10)
        patches.append(
            (cells[:, None].expand(10, 3).reshape(shape) if axis == -2 else cells.expand(shape), start, start + 40)
        )
    found = join_patches(patches, axis)
    assert found.shape == ((1, 25, 3) if axis == -2 else (1, 3, 25))
    line = found[0, :, 0] if axis == -2 else found[0, 0]
    assert float((line - whole.reshape(25, 4).mean(1)).abs().max()) < 0.02


@pytest.mark.parametrize("mode", ["path", "pil", "numpy", "grey", "torch"])
def test_sizes_are_those_of_load_image(mode, tmp_path):
    picture = Image.new("RGB", (12, 8))
    images = {"pil": picture, "numpy": np.array(picture), "grey": np.zeros((8, 12), np.uint8)}
    images["torch"] = torch.zeros(3, 8, 12)
    images["path"] = tmp_path / "a.png"
    picture.save(images["path"])
    assert image_size(images[mode]) == (8, 12) == tuple(load_image(images[mode]).shape[1:])


def test_a_turned_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (12, 8) == tuple(load_image(tmp_path / "a.jpg").shape[1:])


def test_what_is_no_image_is_refused():
    for wrong in (3, np.zeros(4), [1]):
        with pytest.raises(InputError):
            image_size(wrong)
