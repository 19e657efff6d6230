"""Windows of files are those of the whole file; what cannot be read in parts, or is damaged, is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import large_sources
from ddps.errors import InputError
from ddps.inputs import load_image
from ddps.large_sources import TiffRaster, open_large_image, open_raster

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
WINDOWS = [(slice(0, 90), slice(0, 130)), (slice(0, 1), slice(0, 1)), (slice(31, 75), slice(60, 129))]
NEEDS_TIFF = "reads a TIFF"


def check(source: Path | np.ndarray, whole: np.ndarray) -> None:
    image, expected = open_large_image(source), load_image(whole)
    assert image.size == whole.shape[:2]
    for rows, columns in WINDOWS:
        assert torch.equal(image[:, rows, columns], expected[:, rows, columns])


@pytest.mark.parametrize(
    "pixels",
    [PIXELS, PIXELS[:, :, 0], PIXELS[:, :, :1], np.concatenate([PIXELS, PIXELS[:, :, :1]], 2), PIXELS / 255],
    ids=["RGB", "grey", "one channel", "RGBA", "float"],
)
def test_npy(tmp_path, pixels):
    np.save(tmp_path / "image.npy", pixels)
    check(tmp_path / "image.npy", pixels)
    check(pixels, pixels)


@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib", "predictor": True},
        {"rowsperstrip": 7},
        {"rowsperstrip": 1000, "compression": "zlib"},
        {"tile": (256, 256), "bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [3, 0])
def test_tiff(tmp_path, layout, channels):
    tifffile = pytest.importorskip("tifffile", reason=NEEDS_TIFF)
    pixels = PIXELS if channels else PIXELS[:, :, 1]
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb" if channels else "minisblack", **layout)
    check(tmp_path / "image.tif", pixels)


def test_decoded_parts_of_a_tiff_are_kept_up_to_a_bound(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason=NEEDS_TIFF)
    tifffile.imwrite(tmp_path / "image.tif", PIXELS, tile=(32, 32))
    monkeypatch.setattr(large_sources, "CACHE_BYTES", 4 * 32 * 32 * 3)
    raster = TiffRaster(tmp_path / "image.tif")
    assert np.array_equal(raster.read(slice(0, 90), slice(0, 130)), PIXELS)
    assert len(raster._cache) == 4 and raster._cached == sum(part.nbytes for part in raster._cache.values())
    assert np.array_equal(raster.read(slice(0, 20), slice(3, 50)), PIXELS[:20, 3:50])


def test_pictures_that_pillow_reads(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    check(tmp_path / "image.png", PIXELS)
    turned = Image.fromarray(PIXELS)
    exif = turned.getexif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    check(tmp_path / "turned.png", PIXELS[::-1, ::-1])


def test_pictures_too_large_for_pillow(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    monkeypatch.setattr(large_sources, "PILLOW_PIXELS", 10_000)
    expected = r"tiled TIFF or .npy above 10,000 pixels; got a 1.2e-05-gigapixel PNG of 130 x 90; try converting"
    with pytest.raises(InputError, match=expected):
        open_large_image(tmp_path / "image.png")
    monkeypatch.setattr("ddps.inputs.MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(InputError, match=expected):
        open_large_image(tmp_path / "image.png")


def refused(source: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_large_image(source)
    assert "\n" not in str(caught.value)


def test_damaged_files(tmp_path):
    np.save(tmp_path / "image.npy", PIXELS)
    data = (tmp_path / "image.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npy").write_bytes(b"no numbers")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture")
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    refused(tmp_path / "short.npy", "whole .npy file")
    refused(tmp_path / "text.npy", "whole .npy file")
    refused(tmp_path / "objects.npy", "whole .npy file")
    refused(tmp_path / "empty.npy", "empty")
    refused(tmp_path / "text.png", "not an image")
    refused(tmp_path / "none.npy", "does not exist")
    np.savez(tmp_path / "image.npz", PIXELS)
    refused(tmp_path / "image.npz", "read in parts; got the archive")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_tiff(tmp_path, share):
    tifffile = pytest.importorskip("tifffile", reason=NEEDS_TIFF)
    tifffile.imwrite(tmp_path / "image.tif", PIXELS, tile=(32, 32), compression="zlib")
    data = (tmp_path / "image.tif").read_bytes()
    (tmp_path / "short.tif").write_bytes(data[: int(share * len(data))])
    refused(tmp_path / "short.tif", "whole, readable TIFF")


def test_damaged_part_of_a_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason=NEEDS_TIFF)
    tifffile.imwrite(tmp_path / "image.tif", PIXELS, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "image.tif") as file:
        start, length = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    data = bytearray((tmp_path / "image.tif").read_bytes())
    data[start : start + length] = bytes(length)
    (tmp_path / "image.tif").write_bytes(data)
    image = open_large_image(tmp_path / "image.tif")
    with pytest.raises(InputError, match="whole, readable TIFF"):
        image[:, 80:90, 120:130]


def test_tiffs_that_are_not_read(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason=NEEDS_TIFF)
    path, grey = tmp_path / "image.tif", PIXELS[:, :, 0]
    tifffile.imwrite(path, PIXELS.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    refused(path, "upright rows of grey, RGB or class ids; got pixels of shape|separate planes")
    tifffile.imwrite(path, grey, photometric="miniswhite")
    refused(path, "inverted grey")
    tifffile.imwrite(path, PIXELS, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    refused(path, "orientation 6")
    tifffile.imwrite(path, grey, photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    refused(path, "palette indices")
    assert np.array_equal(open_raster(path, "a file").read(slice(0, 90), slice(0, 130)), grey)
    tifffile.imwrite(path, PIXELS.astype(np.uint16), photometric="rgb")
    refused(path, "uint8, or of float in")


def test_compressions_that_are_not_installed(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason=NEEDS_TIFF)
    tifffile.imwrite(tmp_path / "image.tif", PIXELS, tile=(32, 32))
    raster = TiffRaster(tmp_path / "image.tif")

    def decode(data, index):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(raster, "_decode", decode)
    with pytest.raises(InputError, match="try pip install imagecodecs, or deflate"):
        raster.read(slice(0, 1), slice(0, 1))


def test_tiff_without_tifffile(tmp_path, monkeypatch):
    (tmp_path / "image.tif").write_bytes(b"II")
    monkeypatch.setattr(large_sources, "find_spec", lambda name: None)
    refused(tmp_path / "image.tif", r"tifffile, which reads .*pip install 'ddps\[large\]', or .npy")
