import numpy as np
from PIL import Image

from ddps.app.examples import THUMBNAIL, Example, lay_out
from ddps.app.uploads import parse_names, read_upload


def test_examples_are_files_that_the_page_reads(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    names = ("background", "box", "rug")
    [example] = lay_out([Example("room", files.photo, files.labels, names)], folder)
    assert {path.name for path in folder.iterdir()} == {"room.png", "room_mask.png"}
    upload = read_upload(example.photo, example.mask, names=parse_names(example.names))
    assert np.array_equal(upload.known.argmax().numpy(), files.labels) and upload.names == names


def test_a_thumbnail_is_square_and_shows_the_mask(files, tmp_path_factory):
    Image.open(files.photo).resize((960, 640)).save(files.photo)
    labels = np.kron(files.labels, np.ones((10, 10), np.uint8))
    names = ("background", "box", "rug")
    folders = (tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b"))
    [one] = lay_out([Example("room", files.photo, labels, names)], folders[0])
    [other] = lay_out([Example("room", files.photo, 0 * labels, names)], folders[1])
    assert one.thumbnail.size == other.thumbnail.size == (THUMBNAIL, THUMBNAIL)
    assert not np.array_equal(np.asarray(one.thumbnail), np.asarray(other.thumbnail))
