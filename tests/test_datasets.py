"""Tiny data sets in the official layouts, written here."""

import json

import numpy as np
import pytest
from PIL import Image

from ddps.datasets import files_by_stem, list_pairs, read_classes
from ddps.errors import InputError
from ddps.label_spaces import ADE20K_NAMES, CITYSCAPES_NAMES


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)


def make_folders(root, **about):
    for stem in ("b", "a"):
        write(root / "test" / "images" / f"{stem}.jpg", np.zeros((2, 3, 3)))
        write(root / "test" / "masks" / f"{stem}.png", [[0, 1, 2], [9, 9, 0]])
    about = {"num_classes": 3, "classes": ["sky", "road", "car"], "ignore_index": 9, **about}
    (root / "classes.json").write_text(json.dumps(about))
    return root


def make_ade20k(root):
    for split, number in (("training", 1), ("validation", 7)):
        stem = f"ADE_{split[:5]}_{number:08}"
        write(root / "images" / split / f"{stem}.jpg", np.zeros((1, 4, 3)))
        write(root / "annotations" / split / f"{stem}.png", [[0, 1, 150, 3]])
    return root


def make_cityscapes(root, masks="labelTrainIds"):
    values = [[0, 18, 255]] if masks == "labelTrainIds" else [[7, 33, 4]]
    for city, frame in (("ulm", 3), ("aachen", 1)):
        stem = f"{city}_000000_00000{frame}"
        write(root / "leftImg8bit" / "val" / city / f"{stem}_leftImg8bit.png", np.zeros((1, 3, 3)))
        write(root / "gtFine" / "val" / city / f"{stem}_gtFine_{masks}.png", values)
        write(root / "gtFine" / "val" / city / f"{stem}_gtFine_color.png", np.zeros((1, 3, 4)))
    return root


@pytest.mark.parametrize("layout", ["auto", "folders"])
def test_plain_folders(tmp_path, layout):
    data = list_pairs(make_folders(tmp_path / "set"), "test", layout)
    assert [(image.name, mask.name) for image, mask in data.pairs] == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
    assert (data.name, data.num_classes, data.ignore_index, data.names) == ("set", 3, 9, ("sky", "road", "car"))
    mask = data.read_mask(data.pairs[0][1])
    assert mask.dtype == np.int64 and mask.tolist() == [[0, 1, 2], [9, 9, 0]] and len(set(data.palette)) == 3


@pytest.mark.parametrize(
    ("split", "folder"), [("val", "validation"), ("validation", "validation"), ("train", "training")]
)
@pytest.mark.parametrize("inner", [True, False])
def test_ade20k_counts_from_zero_and_leaves_the_rest_void(tmp_path, split, folder, inner):
    root = make_ade20k(tmp_path / "ADEChallengeData2016")
    data = list_pairs(root if inner else tmp_path, split)
    assert [image.parent.name for image, _ in data.pairs] == [folder]
    assert data.read_mask(data.pairs[0][1]).tolist() == [[255, 0, 149, 2]]
    assert (data.num_classes, data.ignore_index) == (150, 255) and len(data.palette) == 150
    assert data.names == ADE20K_NAMES and (data.names[0], data.names[2], data.names[149]) == ("wall", "sky", "flag")


def test_cityscapes_train_ids(tmp_path):
    data = list_pairs(make_cityscapes(tmp_path), "val")
    assert [image.parent.name for image, _ in data.pairs] == ["aachen", "ulm"]
    assert all(mask.name.endswith("_gtFine_labelTrainIds.png") for _, mask in data.pairs)
    assert data.read_mask(data.pairs[1][1]).tolist() == [[0, 18, 255]]
    assert (data.num_classes, data.ignore_index, data.names) == (19, 255, CITYSCAPES_NAMES)
    assert data.palette[13] == (0, 0, 142)


def test_cityscapes_as_downloaded_has_the_full_list_of_ids(tmp_path):
    data = list_pairs(make_cityscapes(tmp_path, "labelIds"), "val")
    assert data.read_mask(data.pairs[0][1]).tolist() == [[0, 18, 255]]


def test_values_that_are_no_class_are_named(tmp_path):
    data = list_pairs(make_folders(tmp_path / "plain"), "test")
    write(data.pairs[0][1], [[0, 7, 8]])
    with pytest.raises(InputError, match=r"a\.png with values of 3 classes \(from 0 on\) or void; got values 7, 8;"):
        data.read_mask(data.pairs[0][1])
    data = list_pairs(make_ade20k(tmp_path / "ade"), "val")
    write(data.pairs[0][1], [[0, 151]])
    with pytest.raises(InputError, match=r"from 1 on.*values 151"):
        data.read_mask(data.pairs[0][1])
    data = list_pairs(make_cityscapes(tmp_path / "city"), "val")
    write(data.pairs[0][1], [[0, 26]])
    with pytest.raises(InputError, match="values 26"):
        data.read_mask(data.pairs[0][1])


def test_masks_and_images_without_each_other(tmp_path):
    root = make_folders(tmp_path / "plain")
    (root / "test" / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"a mask for every image; got 1 of 2 without one, such as b\.jpg"):
        list_pairs(root, "test")
    write(root / "test" / "masks" / "b.png", [[0]])
    write(root / "test" / "masks" / "c.png", [[0]])
    with pytest.raises(InputError, match=r"an image for every mask; got 1 of 3 without one, such as c\.png"):
        list_pairs(root, "test")
    root = make_cityscapes(tmp_path / "city")
    next((root / "gtFine" / "val" / "ulm").glob("*labelTrainIds.png")).unlink()
    with pytest.raises(InputError, match="a mask for every image.*ulm_000000_000003_leftImg8bit.png"):
        list_pairs(root, "val")


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    plain, ade, city = (
        make_folders(tmp_path / "plain"),
        make_ade20k(tmp_path / "ade"),
        make_cityscapes(tmp_path / "city"),
    )
    cases = [
        (tmp_path / "none", "val", "auto", "does not exist"),
        (tmp_path, "val", "auto", "leftImg8bit/ and gtFine/"),
        (plain, "train", "auto", "no folder 'train'.*only test"),
        (plain, "test", "ade20k", "ADEChallengeData2016"),
        (plain, "test", "cityscapes", "leftImg8bit"),
        (ade, "test", "auto", "only training, validation"),
        (ade, "val", "folders", "SET/"),
        (city, "test", "auto", "no folder 'test'.*only val"),
    ]
    for root, split, layout, message in cases:
        with pytest.raises(InputError, match=message) as error:
            list_pairs(root, split, layout)
        assert "\n" not in str(error.value)
    (plain / "classes.json").unlink()
    with pytest.raises(InputError, match=r"classes\.json"):
        list_pairs(plain, "test", "folders")


def test_classes_files(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"classes": ["sky", "road"]}')
    space = read_classes(path)
    assert (space.num_classes, space.names, space.ignore_index) == (2, ("sky", "road"), 255)
    path.write_text('{"num_classes": 3, "classes": ["sky", "road"]}')
    with pytest.raises(InputError):
        read_classes(path)


def test_files_come_in_order_and_others_are_left_out(tmp_path):
    for name in ("b.png", "a.PNG", ".c.png", "d.txt", "1.2.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list(files_by_stem(tmp_path, (".png",), "images")) == ["1.2", "a", "b"]


def test_links_count_where_they_lead_to_a_file(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    for name, target in (("a.png", elsewhere / "file"), ("b.png", elsewhere), ("c.png", tmp_path / "c.png")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "d.png").symlink_to(tmp_path / "nothing")
    assert files_by_stem(tmp_path, (".png",), "images") == {"a": tmp_path / "a.png"}


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
