import zipfile

import numpy as np
import pytest

from ddps import array_files
from ddps.array_files import check_values, read_array
from ddps.errors import InputError

from .long.fuzz_memory import Peak
from .long.fuzz_readers import npy, npy_claim, npz

KEYS = ("logits", "labels")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.npz"


def refusal(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_array(path, KEYS)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f2", "u1", "?", "<i8", "c8", "U3"])
def test_arrays_come_as_numpy_wrote_them(path, order, dtype):
    values = np.asarray(np.arange(24).reshape(2, 3, 4), order=order).astype(dtype)
    np.save(path.with_suffix(".npy"), values)
    np.savez_compressed(path, labels=values, logits=values + values if dtype != "U3" else values, other=1)
    found, key = read_array(path.with_suffix(".npy"), KEYS)
    assert key is None and np.array_equal(found, values) and found.dtype == values.dtype
    assert read_array(path, ("labels",))[1] == "labels"
    assert read_array(path, KEYS)[1] == "logits"


def test_the_content_tells_archives_from_arrays(path):
    np.save(path.with_suffix(".npy"), np.arange(3))
    path.write_bytes(path.with_suffix(".npy").read_bytes())
    assert read_array(path, KEYS)[1] is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (npz({"logits": b"raw bytes"}), "whole numpy file"),
        (npz({"scores.npy": npy(np.zeros(2))}), "the key logits or labels; got keys: scores"),
        (npz({"\n\x1b[2J.npy": b""}), r"keys:  \x1b[2J"),
        (npy(np.array([{}], dtype=object)), "without pickled objects"),
        (npy_claim((4, 4), body=bytes(63)), "63 bytes of values, which cannot hold the 16 values"),
        (npy_claim((-1, 4), body=bytes(64)), "its shape is (-1, 4)"),
        (npy_claim((2**62, 2**62), "|S0"), "million values"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(80), "header is too long"),
        (b"\x93NUMPY\x09\x00" + bytes(80), "whole numpy file"),
        (b"PK\x03\x04" + bytes(80), "whole numpy file"),
    ],
)
def test_what_is_no_whole_array(path, data, said):
    assert said in refusal(path, data)


def test_an_archive_that_unpacks_to_more_than_the_limit(path, monkeypatch):
    zeros = npy(np.zeros(1 << 25, np.uint8))
    bomb, raw = npz({"logits.npy": zeros}), npz({"logits": zeros}, zipfile.ZIP_BZIP2)
    assert len(bomb) < 1 << 16
    monkeypatch.setattr(array_files, "MAX_VALUES", 1 << 20)
    peak = Peak()
    assert "at most 1 million values" in refusal(path, bomb)
    assert "at most 1 million values" in refusal(path, raw)
    assert peak.grown() < 4 << 20
    monkeypatch.setattr(array_files, "MAX_VALUES", None)
    path.write_bytes(bomb)
    assert read_array(path, KEYS)[0].shape == (1 << 25,)


def test_values_are_counted_without_unpacking(path):
    path.write_bytes(npz({"logits.npy": npy(np.zeros((10, 10))), "labels.npy": npy(np.zeros(2))}))
    check_values(path, KEYS, 100, "fewer")
    with pytest.raises(InputError, match="try fewer"):
        check_values(path, KEYS, 99, "fewer")
    check_values(path, ("labels",), 99, "fewer")
