"""Rows in, whole files out: .npy and tiled TIFF."""

import numpy as np
import pytest
from PIL import Image

from ddps import atomic, large_outputs
from ddps.errors import InputError
from ddps.large_outputs import check_output, open_output

SIZE = (700, 1100)
VALUES = np.random.default_rng(0).integers(0, 300, SIZE)


def write(path, dtype, **options) -> None:
    with open_output(path, SIZE, np.dtype(dtype), **options) as rows:
        for top in (0, 1, 500):
            rows.write(VALUES.astype(dtype)[top : {0: 1, 1: 500, 500: 700}[top]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_npy(tmp_path, dtype):
    write(tmp_path / "labels.npy", dtype)
    read = np.load(tmp_path / "labels.npy")
    assert read.dtype == dtype and np.array_equal(read, VALUES.astype(dtype))
    assert [path.name for path in tmp_path.iterdir()] == ["labels.npy"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("big", [False, True])
def test_tiff(tmp_path, dtype, big, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason="reads and writes TIFFs")
    monkeypatch.setattr(large_outputs, "BIG_FROM", 1000 if big else 2**31)
    write(tmp_path / "labels.tif", dtype, palette=((1, 2, 3), (4, 5, 255)))
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        page = file.pages[0]
        assert page.asarray().dtype == dtype and np.array_equal(page.asarray(), VALUES.astype(dtype))
        assert file.is_bigtiff is big and (page.tilelength, page.tilewidth) == (512, 512)
        assert page.compression.name == "ADOBE_DEFLATE"
        assert page.photometric.name == ("PALETTE" if dtype == np.uint8 else "MINISBLACK")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]
    with Image.open(tmp_path / "labels.tif") as picture:
        assert np.array_equal(np.asarray(picture), VALUES.astype(dtype))
        if dtype == np.uint8:
            assert picture.mode == "P" and picture.getpalette()[:9] == [1, 2, 3, 4, 5, 255, 0, 0, 0]


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_all_or_nothing(tmp_path, suffix):
    if suffix == ".tif":
        pytest.importorskip("tifffile", reason="writes a TIFF")
    path = tmp_path / f"labels{suffix}"
    with pytest.raises(KeyboardInterrupt), open_output(path, SIZE, np.dtype(np.uint8)) as rows:
        rows.write(VALUES[:3].astype(np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"here")
    with pytest.raises(InputError, match="does not exist yet"):
        write(path, np.uint8)
    write(path, np.uint8, overwrite=True)
    assert path.stat().st_size > 1000


def test_names(monkeypatch):
    with pytest.raises(InputError, match=r"ending in .tif, .tiff or .npy; got 'a.png'"):
        check_output("a.png")
    monkeypatch.setattr("ddps.large_sources.find_spec", lambda name: None)
    check_output("a.npy")
    with pytest.raises(InputError, match=r"tifffile, which writes 'a.TIF'.*ddps\[large\]"):
        check_output("a.TIF")


@pytest.mark.skipif(not atomic.LOCKS, reason="a system without file locks")
def test_what_a_killed_run_left_of_this_file_is_removed(tmp_path):
    left, others = tmp_path / ".labels.npy.0123456789ab.tmp", tmp_path / ".other.npy.0123456789ab.tmp"
    for path in (left, others):
        path.write_bytes(b"gigabytes")
    write(tmp_path / "labels.npy", np.uint8)
    assert not left.exists() and others.exists()
