import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from ddps.app.uploads import LONGEST_NAME, MOST_NAMES, Limits, parse_names, read_upload
from ddps.errors import InputError


def test_label_maps_and_arrays_are_read_as_they_are(files):
    upload = read_upload(files.photo, files.label_map)
    assert np.array_equal(upload.known.argmax().numpy(), files.labels)
    assert np.array_equal(np.asarray(upload.photo), np.asarray(Image.open(files.photo)))
    assert (upload.stem, upload.known.kind, upload.names) == ("photo", "labels", ())
    upload = read_upload(files.photo, files.logits)
    assert (upload.known.kind, upload.known.num_classes) == ("logits", 3)
    # four times coarser: outlines may be off by a pixel
    assert (upload.known.argmax().numpy() == files.labels).mean() > 0.95


def test_a_mask_of_0_and_255_is_background_and_foreground(files):
    upload = read_upload(files.photo, files.binary)
    assert np.array_equal(upload.known.argmax().numpy(), files.labels == 1)
    assert upload.names == ("background", "foreground")
    assert read_upload(files.photo, files.binary, names=("sky", "bird")).names == ("sky", "bird")


def test_unless_it_is_said_to_hold_class_ids(files):
    assert bool(read_upload(files.photo, files.binary, kind="labels").known.void.any())


def test_a_sigmoid_foreground_gets_names(files):
    np.save(files.folder / "one.npy", np.where(files.labels[None] == 1, 3.0, -3.0))
    assert read_upload(files.photo, files.folder / "one.npy").names == ("background", "foreground")


def refused(files, image=None, prediction=None, **options):
    """The sentence about an upload, which names no folder."""
    with pytest.raises(InputError) as caught:
        read_upload(image or files.photo, prediction or files.label_map, **options)
    assert str(files.folder) not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


class TestRefused:
    def test_an_image_cut_short(self, files):
        (files.folder / "cut.png").write_bytes(files.photo.read_bytes()[:-2000])
        assert "whole, readable file" in refused(files, files.folder / "cut.png")

    def test_no_image(self, files):
        (files.folder / "text.jpg").write_text("hello")
        assert "'text.jpg'" in refused(files, files.folder / "text.jpg")

    def test_an_empty_file(self, files):
        (files.folder / "none.png").touch()
        assert "empty" in refused(files, files.folder / "none.png")

    def test_a_format_that_starts_other_programs(self, files):
        Image.open(files.photo).save(files.folder / "photo.eps")
        assert "PNG, JPEG" in refused(files, files.folder / "photo.eps")

    def test_an_image_of_too_many_pixels(self, files):
        assert "megapixels" in refused(files, limits=Limits(pixels=96 * 64 - 1))

    def test_a_label_map_of_too_many_pixels_before_it_is_decoded(self, files):
        header = io.BytesIO()
        Image.new("L", (8, 8)).save(header, "PNG")
        data = bytearray(header.getvalue())
        data[16:24] = struct.pack(">II", 20000, 20000)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
        (files.folder / "bomb.png").write_bytes(data)
        assert "a label map of at most 8.3 megapixels" in refused(files, prediction=files.folder / "bomb.png")

    def test_a_file_of_too_many_bytes(self, files):
        assert "MiB" in refused(files, limits=Limits(file_bytes=100))

    @pytest.mark.parametrize("name", ["logits.npy", "logits"])
    def test_an_archive_that_unpacks_to_too_much(self, files, name):
        with zipfile.ZipFile(files.folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, bytes(1 << 20))
        limits = Limits(values=1000)
        assert "million values" in refused(files, prediction=files.folder / "bomb.npz", limits=limits)

    def test_an_array_that_claims_too_much(self, files):
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (150, 1 << 20, 99)}
        )
        (files.folder / "claim.npy").write_bytes(file.getvalue() + bytes(64))
        assert "cannot hold the 15571353600 values" in refused(files, prediction=files.folder / "claim.npy")

    def test_an_array_cut_short(self, files):
        np.save(files.folder / "cut.npy", np.zeros((3, 64, 96), np.float32))
        with open(files.folder / "cut.npy", "r+b") as file:
            file.truncate(1000)
        assert "whole numpy file" in refused(files, prediction=files.folder / "cut.npy")

    def test_a_pickle(self, files):
        np.save(files.folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
        assert "without pickled objects" in refused(files, prediction=files.folder / "objects.npy")

    def test_text_as_an_array(self, files):
        for name in ("text.npy", "text.npz"):
            (files.folder / name).write_text("hello")
            assert "whole numpy file" in refused(files, prediction=files.folder / name)

    def test_another_suffix(self, files):
        (files.folder / "labels.csv").write_text("0,1")
        assert ".png, .npy or .npz" in refused(files, prediction=files.folder / "labels.csv")

    def test_the_label_map_of_another_image(self, files):
        Image.new("L", (64, 64)).save(files.folder / "other.png")
        assert "96 x 64" in refused(files, prediction=files.folder / "other.png")

    def test_a_colour_picture_as_label_map(self, files):
        assert "class ids" in refused(files, prediction=files.photo)

    def test_values_that_leave_their_kind_open(self, files):
        np.save(files.folder / "open.npy", np.full((3, 16, 24), 0.4, np.float32))
        assert "kind='probs' or kind='logits'" in refused(files, prediction=files.folder / "open.npy")
        assert read_upload(files.photo, files.folder / "open.npy", kind="logits").known.kind == "logits"

    def test_another_kind_than_the_file_says(self, files):
        assert "holds logits" in refused(files, prediction=files.logits, kind="probs")

    def test_other_classes_than_the_weights_have(self, files):
        assert "class" in refused(files, prediction=files.logits, num_classes=5)


class TestNames:
    def test_are_separated_by_commas_and_lines(self):
        assert parse_names(" sky,  road  sign\ncar, ") == ("sky", "road sign", "car")
        assert parse_names("") == ()

    def test_one_in_the_middle_may_be_left_out(self):
        assert parse_names("sky,,car") == ("sky", "", "car")

    @pytest.mark.parametrize("text", ["a," * MOST_NAMES + "b", "a" * (LONGEST_NAME + 1)])
    def test_too_many_or_too_long_ones_are_refused(self, text):
        with pytest.raises(InputError):
            parse_names(text)
