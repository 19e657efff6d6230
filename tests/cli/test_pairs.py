import pytest

from ddps.cli.pairs import check_partners, files_by_stem, name_item
from ddps.errors import InputError


def test_files_come_in_order_and_others_are_left_out(tmp_path):
    for name in ("b.png", "a.PNG", ".c.png", "d.txt", "1.2.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list(files_by_stem(tmp_path, (".png",), "images")) == ["1.2", "a", "b"]


def test_two_files_of_one_stem(tmp_path):
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="a.jpg and a.png"):
        files_by_stem(tmp_path, (".png", ".jpg"), "images")


def test_folders_that_are_none(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "none"):
        with pytest.raises(InputError):
            files_by_stem(path, (".png",), "images")


def test_partners(tmp_path):
    predictions = {"a": tmp_path / "a.npz", "b": tmp_path / "b.npz"}
    check_partners(predictions, ["a", "b", "c"], "an image")
    with pytest.raises(InputError, match=r"an image .* 1 of 2 without one, such as b\.npz"):
        check_partners(predictions, ["a"], "an image")


def test_errors_name_their_file():
    assert str(name_item(InputError("x", "y", "z"), "a.npz")) == "expected a.npz: x; got y; try z"
    assert "a.npz" in str(name_item(OSError("no space left"), "a.npz"))
