import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps.cli.refine_labels import VOID, read_label_map, read_png_form
from ddps.errors import InputError
from ddps.outputs import Refinement
from ddps.predictions import read_prediction_file
from ddps.visualize import default_palette


def read(path, size=None, ignore_index=255, num_classes=None, keep_ids=False, kind="labels"):
    values, _ = read_prediction_file(path)
    return read_label_map(values, path, size or values.shape, kind, ignore_index, num_classes, keep_ids)


def there_and_back(labels):
    """What is written where refinement changes nothing."""
    nothing = np.zeros(labels.labels.shape, dtype=np.float32)
    refined = Refinement(labels.labels, None, nothing, nothing > 0, default_palette(len(labels.ids)))
    file = io.BytesIO()
    labels.write(labels.restore_answer(refined), file)
    file.seek(0)
    return file


def image(path, array, palette=None, **options):
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path, **options)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.png"


LABELS = np.array([[0, 0, 3, 3], [0, 9, 9, 255], [3, 3, 3, 255]], dtype=np.uint8)


class TestForms:
    @pytest.mark.parametrize(
        "array",
        [LABELS, LABELS.astype(np.uint16) * 200, LABELS > 3],
        ids=["8 bit", "16 bit", "1 bit"],
    )
    def test_grey_stays_grey(self, path, array):
        image(path, array)
        labels = read(path, ignore_index=int(array.max()) if array.dtype != bool else 255)
        with Image.open(there_and_back(labels)) as back, Image.open(path) as original:
            assert back.mode == original.mode
            np.testing.assert_array_equal(np.array(back), np.array(original))

    @pytest.mark.parametrize("colours", [256, 21, 10])
    def test_a_palette_stays_as_it_was(self, path, colours):
        array = np.where(LABELS == 255, 255 if colours == 256 else 1, LABELS).astype(np.uint8)
        palette = [*range(3 * colours)] if colours < 86 else [i % 251 for i in range(768)]
        image(path, array, palette)
        labels = read(path)
        with Image.open(there_and_back(labels)) as back, Image.open(path) as original:
            assert back.mode == original.mode == "P"
            assert bytes(back.palette.palette) == bytes(original.palette.palette)
            np.testing.assert_array_equal(np.array(back), array)

    def test_void_beyond_the_palette(self, tmp_path):
        # A file as other writers make it: 8 bits per pixel, and fewer colours than its largest id.
        picture = Image.fromarray(LABELS)
        picture.putpalette([*range(60)])
        path = tmp_path / "labels.png"
        picture.save(path, bits=8)
        labels = read(path)
        with Image.open(there_and_back(labels)) as back:
            np.testing.assert_array_equal(np.array(back), LABELS)
            assert bytes(back.palette.palette)[:60] == bytes(range(60))

    def test_transparency_is_kept(self, path):
        image(path, LABELS, [i % 256 for i in range(768)], transparency=9)
        with Image.open(there_and_back(read(path))) as back:
            back.load()
            assert back.info["transparency"] == 9

    def test_the_overlay_takes_the_files_colours(self, path):
        image(path, LABELS, [1, 2, 3, *range(9, 60)])
        assert read_png_form(path).colours[:2] == ((1, 2, 3), (9, 10, 11))


class TestIds:
    def test_gaps_and_large_ids_are_put_in_a_row_and_back(self, path):
        array = np.array([[7, 40000], [65534, 65535]], dtype=np.uint16)
        labels = read(image(path, array), ignore_index=65535)
        assert labels.ids.tolist() == [7, 40000, 65534] and labels.labels.tolist() == [[0, 1], [2, VOID]]
        np.testing.assert_array_equal(labels.restore(labels.labels), array)

    def test_void_may_be_any_id(self, path):
        labels = read(image(path, LABELS), ignore_index=0)
        assert labels.ids.tolist() == [3, 9, 255]
        np.testing.assert_array_equal(labels.restore(labels.labels), LABELS)

    def test_kept_ids(self, path):
        labels = read(image(path, LABELS), num_classes=11, keep_ids=True)
        assert labels.ids.tolist() == list(range(11)) and labels.labels[1, 1] == 9 and labels.labels[1, 3] == VOID

    def test_nothing_but_void(self, path):
        labels = read(image(path, np.full((4, 4), 255, dtype=np.uint8)))
        assert len(labels.ids) == 1 and (labels.restore(labels.labels) == 255).all()

    def test_ids_beyond_the_classes(self, path):
        with pytest.raises(InputError, match="class ids 0 to 8 or void 255; got ids 9"):
            read(image(path, LABELS), num_classes=9)


class TestSizes:
    @pytest.mark.parametrize("size", [(480, 640), (479, 640), (30, 40), (7, 9), (1, 1)])
    def test_coarse_grids_fit(self, size):
        height, width = 480, 640
        values = np.zeros(size, dtype=np.int64)
        labels = read_label_map(values, Path("x.npy"), (height, width), "labels", 255, None, False)
        assert labels.resized == (size != (height, width))

    @pytest.mark.parametrize("size", [(640, 480), (480, 600), (30, 30)])
    def test_other_shapes_do_not(self, size):
        with pytest.raises(InputError, match="480 x 640"):
            read_label_map(np.zeros(size, dtype=np.int64), Path("x.npy"), (480, 640), "labels", 255, None, False)
