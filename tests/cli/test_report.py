import json
import math

import pytest
from PIL import Image

from ddps.cli.report import check_new, percent, table, to_json, write_picture, write_text
from ddps.errors import InputError


def test_undefined_numbers_become_null():
    value = {"a": [1.5, math.nan], "b": (math.inf, {"c": 2})}
    assert json.loads(to_json(value)) == {"a": [1.5, None], "b": [None, {"c": 2}]}


def test_bytes_that_are_no_text_are_escaped(tmp_path):
    text = to_json({"name": "ü\udcff"})
    assert "ü" in text and json.loads(text.encode()) == {"name": "ü\udcff"}
    write_text("\udcff", tmp_path / "x", overwrite=False)
    assert (tmp_path / "x").read_text() == "?"


def test_percent():
    assert percent(12.345) == "12.35" or percent(12.345) == "12.34"
    assert percent(0.5, signed=True) == "+0.50" and percent(math.nan) == "-"


def test_columns_are_aligned():
    assert table([["a", "b"], ["long", "1"]]) == "a     b\nlong  1"


def test_pictures_by_suffix(tmp_path):
    picture = Image.new("RGB", (4, 4))
    for name, wanted in (("x.png", "PNG"), ("x.JPG", "JPEG")):
        write_picture(picture, tmp_path / name, overwrite=False)
        with Image.open(tmp_path / name) as written:
            assert written.format == wanted
    with pytest.raises(InputError):
        write_picture(picture, tmp_path / "x.tiff", overwrite=False)


def test_what_is_not_new_is_refused(tmp_path):
    write_text("text", tmp_path / "x", overwrite=False)
    with pytest.raises(InputError, match="--overwrite"):
        check_new(tmp_path / "x", overwrite=False)
    check_new(tmp_path / "x", overwrite=True)
    for path in (tmp_path, tmp_path / "none" / "x"):
        with pytest.raises(InputError):
            check_new(path, overwrite=True)
