import pytest

from ddps.cli.pairs import check_partners, name_item, split_partners
from ddps.errors import InputError


def test_partners(tmp_path):
    predictions = {"a": tmp_path / "a.npz", "b": tmp_path / "b.npz"}
    check_partners(predictions, ["a", "b", "c"], "an image")
    with pytest.raises(InputError, match=r"an image .* 1 of 2 without one, such as b\.npz"):
        check_partners(predictions, ["a"], "an image")


def test_split(tmp_path):
    predictions = {"a": tmp_path / "a.npz", "b": tmp_path / "b.npz"}
    assert split_partners(predictions, ["b", "c"]) == ({"b": tmp_path / "b.npz"}, [tmp_path / "a.npz"])
    with pytest.raises(InputError, match="2 of 2 without one"):
        split_partners(predictions, ["c"])


def test_errors_name_their_file():
    assert str(name_item(InputError("x", "y", "z"), "a.npz")) == "expected a.npz: x; got y; try z"
    assert "a.npz" in str(name_item(OSError("no space left"), "a.npz"))
