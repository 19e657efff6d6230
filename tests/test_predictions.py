import warnings
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddps import predictions
from ddps.errors import InputError
from ddps.predictions import LABEL_CONFIDENCE, load_prediction, read_prediction_file


def logits(k=4, h=5, w=7, seed=0):
    return 3 * torch.randn(k, h, w, generator=torch.Generator().manual_seed(seed))


def resized(values, size):
    """Full resize in float64, the reference for everything that is computed window by window."""
    return F.interpolate(values[None].double(), size=size, mode="bilinear", align_corners=False)[0]


SIZES = [(5, 7), (20, 28), (13, 31), (1, 1), (3, 2), (1, 40), (33, 5), (64, 63)]


class TestResize:
    @pytest.mark.parametrize("size", SIZES)
    def test_logits_are_resized_as_logits(self, size):
        prediction = load_prediction(logits(), size)
        expected = resized(logits(), size)
        assert prediction.kind == "logits" and prediction.num_classes == 4 and prediction.size == size
        torch.testing.assert_close(prediction.probs(), expected.softmax(0).float(), atol=1e-6, rtol=1e-5)
        assert prediction.probs().dtype == torch.float32
        assert torch.equal(prediction.argmax(), expected.argmax(0))
        assert not prediction.void.any() and prediction.void.shape == size

    @pytest.mark.parametrize("size", SIZES)
    def test_probabilities_are_resized_as_probabilities(self, size):
        probs = logits().softmax(0)
        prediction = load_prediction(probs, size)
        assert prediction.kind == "probs"
        torch.testing.assert_close(prediction.probs(), resized(probs, size).float(), atol=1e-6, rtol=1e-5)
        assert torch.equal(prediction.argmax(), resized(probs, size).argmax(0))

    @pytest.mark.parametrize("size", [(10, 14), (13, 31), (5, 7), (2, 3)])
    def test_label_maps_are_resized_by_nearest(self, size):
        labels = logits().argmax(0)
        expected = F.interpolate(labels[None, None].double(), size=size, mode="nearest-exact")[0, 0].long()
        assert torch.equal(load_prediction(labels, size).argmax(), expected)

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_a_window_equals_that_window_of_the_whole(self, data):
        h, w = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
        height, width = data.draw(st.integers(1, 33)), data.draw(st.integers(1, 33))
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
        values = logits(3, h, w)
        for given_values in (values, values.softmax(0), values.argmax(0)):
            prediction = load_prediction(given_values, (height, width))
            whole = prediction.probs()[:, top : top + rows, left : left + columns]
            window = prediction.crop(top, left, rows, columns)
            # Softmax may round the last bit otherwise at another place in memory; the resize may not.
            torch.testing.assert_close(window, whole, atol=2e-7 if prediction.kind == "logits" else 0, rtol=0)

    def test_the_answer_in_strips_equals_the_answer_at_once(self, monkeypatch):
        prediction = load_prediction(logits(), (33, 29))
        whole = prediction.argmax()
        monkeypatch.setattr(predictions, "STRIP_PIXELS", 29 * 5)
        assert torch.equal(prediction.argmax(), whole)
        monkeypatch.setattr(predictions, "STRIP_PIXELS", 1)
        assert torch.equal(prediction.argmax(), whole)

    def test_huge_logits_stay_finite(self):
        values = torch.tensor([[[3e38, -3e38]], [[-3e38, 3e38]]])
        probs = load_prediction(values, (1, 9)).probs()
        assert torch.isfinite(probs).all()
        torch.testing.assert_close(probs.sum(0), torch.ones(1, 9))

    @pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, 0, 0, 1), (9, 0, 2, 1), (0, 8, 1, 3)])
    def test_windows_outside_the_image_are_refused(self, window):
        with pytest.raises(InputError, match="window inside the image of 10 x 10"):
            load_prediction(logits(), (10, 10)).crop(*window)

    def test_the_answer_belongs_to_the_caller(self):
        for values in (logits(), logits().softmax(0), logits().argmax(0)):
            before = values.clone()
            prediction = load_prediction(values, (5, 7))
            prediction.probs().fill_(9)
            prediction.argmax().fill_(9)
            prediction.crop(0, 0, 5, 7).zero_()
            assert torch.equal(prediction.native.to(values.dtype), before) or prediction.kind == "probs"
            assert torch.equal(prediction.argmax(), load_prediction(before, (5, 7)).argmax())
            assert torch.equal(values, before)

    def test_moving_to_a_device_keeps_everything_else(self):
        prediction = load_prediction(logits(), (9, 9))
        moved = prediction.to("meta")
        assert moved.native.device.type == "meta" and moved.size == (9, 9) and moved.kind == "logits"
        assert moved.crop(0, 0, 3, 3).shape == (4, 3, 3)


class TestKind:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8])
    def test_every_number_type_of_logits(self, dtype):
        values = (10 * logits()).to(dtype)
        prediction = load_prediction(values, (5, 7))
        assert prediction.kind == "logits" and prediction.native.dtype == torch.float32
        torch.testing.assert_close(prediction.probs(), values.float().softmax(0))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.float32])
    def test_probabilities_of_every_precision_sum_to_one_afterwards(self, dtype):
        prediction = load_prediction(logits(150).softmax(0).to(dtype), (5, 7))
        assert prediction.kind == "probs"
        torch.testing.assert_close(prediction.probs().sum(0), torch.ones(5, 7))

    def test_numpy_and_torch_agree(self):
        for values in (logits(), logits().softmax(0), logits().argmax(0)):
            expected = load_prediction(values, (11, 9))
            array = values.numpy()
            for same in (
                array,
                array[::-1].copy()[::-1],
                np.asfortranarray(array),
                array.astype(array.dtype.newbyteorder()),
            ):
                assert torch.equal(load_prediction(same, (11, 9)).probs(), expected.probs())

    def test_read_only_input_and_gradients(self):
        array = logits().numpy()
        array.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_prediction(array, (5, 7))
        result = load_prediction(logits().requires_grad_(), (5, 7)).probs()
        assert not result.requires_grad

    def test_sigmoid_foreground_becomes_two_classes(self):
        values = logits(1)
        by_logits = load_prediction(values, (13, 11))
        foreground = resized(values, (13, 11)).sigmoid()[0].float()
        torch.testing.assert_close(by_logits.probs(), torch.stack([1 - foreground, foreground]), atol=1e-6, rtol=1e-5)
        by_probs = load_prediction(values.sigmoid(), (13, 11), kind="probs")
        foreground = resized(values.sigmoid(), (13, 11))[0].float()
        torch.testing.assert_close(by_probs.probs(), torch.stack([1 - foreground, foreground]), atol=1e-6, rtol=1e-5)
        assert by_logits.num_classes == by_probs.num_classes == 2

    def test_one_hot_is_probabilities(self):
        one_hot = rearrange(F.one_hot(logits().argmax(0), 4), "h w k -> k h w")
        for values in (one_hot, one_hot.bool(), one_hot.to(torch.uint8), one_hot.float()):
            assert load_prediction(values, (5, 7)).kind == "probs"

    def test_8_bit_probabilities_are_accepted_when_named(self):
        rounded = (logits(11).softmax(0) * 255).round() / 255
        prediction = load_prediction(rounded, (5, 7), kind="probs")
        torch.testing.assert_close(prediction.probs().sum(0), torch.ones(5, 7))

    @pytest.mark.parametrize(
        ("values", "kind", "message"),
        [
            (torch.rand(1, 4, 4), "auto", "one channel.*kind='probs' or kind='logits', or prediction"),
            (torch.full((3, 4, 4), 0.9), "auto", "do not sum to 1.*kind='probs' or kind='logits'"),
            (torch.full((3, 4, 4), 0.9), "probs", r"sum to 1.*sums 2.7 to 2.7.*softmax"),
            (torch.randn(3, 4, 4) - 9, "probs", r"in \[0, 1\]"),
            (torch.zeros(3, 4, 4), "probs", "sums 0 to 0"),
            (torch.full((3, 4, 4), 85, dtype=torch.uint8), "auto", "unsigned integers up to 85.*dividing by 255"),
            (np.full((3, 4, 4), 300, np.uint16), "auto", "unsigned"),
            (torch.rand(4, 4), "auto", r"float values of shape \(4, 4\).*prediction\[None\]"),
            (torch.rand(4, 4), "labels", "whole class ids"),
            (torch.ones(4, 4, dtype=torch.int64), "logits", r"integers of shape \(4, 4\)"),
            (torch.rand(3, 4, 4), "labels", r"label map \(h, w\).*argmax"),
            (torch.ones(1, 4, 4, dtype=torch.int64), "labels", r"prediction\[0\]"),
            (torch.rand(2, 3, 4, 4), "auto", r"shape \(2, 3, 4, 4\).*prediction\[0\]"),
            (torch.rand(4), "auto", r"shape \(4,\)"),
            (torch.rand(3, 0, 4), "auto", r"shape \(3, 0, 4\)"),
            (torch.rand(3, 4, 4), "softmax", "kind one of auto, logits, probs, labels; got 'softmax'"),
            (torch.rand(3, 4, 4) + 0j, "auto", "complex"),
            (np.array([["a"]]), "auto", "numpy dtype"),
            (np.array([[None]]), "auto", "numpy dtype object"),
            ([[1, 2]], "auto", "list; try passing predictions one by one"),
            ({"logits": 1}, "auto", "ddps.adapters"),
        ],
    )
    def test_what_does_not_fit_or_is_left_open(self, values, kind, message):
        with pytest.raises(InputError, match=message):
            load_prediction(values, (8, 8), kind=kind)

    def test_values_outside_0_to_1_are_logits(self):
        assert load_prediction(torch.tensor([[[0.2]], [[1.5]]]), (1, 1)).kind == "logits"
        assert load_prediction(torch.tensor([[[-0.2]], [[0.5]]]), (1, 1)).kind == "logits"
        assert load_prediction(torch.full((3, 4, 4), 0.9), (4, 4), kind="logits").kind == "logits"
        assert load_prediction(torch.tensor([[[7.0]]]), (1, 1)).kind == "logits"

    @pytest.mark.parametrize("container", [lambda t: t, lambda t: t.numpy(), lambda t: t.double()])
    def test_values_that_are_not_finite(self, container):
        values = logits()
        values[2, 3, 4] = values[3, 0, 0] = float("nan")
        values[2, 4, 0] = float("-inf")
        expected = r"2 NaN and 1 infinite values, the first at \(class, row, column\) = \(2, 3, 4\); try"
        with pytest.raises(InputError, match=expected):
            load_prediction(container(values), (10, 10))

    def test_overflow_on_the_way_to_float32(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match="1 infinite"):
                load_prediction(np.array([[[1e300]], [[0.0]]]), (1, 1))

    @pytest.mark.parametrize("size", [(0, 4), (4,), (4, -1)])
    def test_size_is_checked(self, size):
        with pytest.raises(InputError, match="size as"):
            load_prediction(logits(), size)

    def test_number_of_classes_is_checked(self):
        assert load_prediction(logits(4), (5, 7), num_classes=4).num_classes == 4
        assert load_prediction(5 + logits(1), (5, 7), num_classes=2).num_classes == 2
        with pytest.raises(InputError, match="over 150 classes; got 4 channels"):
            load_prediction(logits(4), (5, 7), num_classes=150)


class TestLabelMaps:
    def test_confidence_is_spread_over_the_classes_present(self):
        labels = np.array([[0, 3, 5], [3, 3, 0]], np.uint8)
        prediction = load_prediction(labels, (2, 3))
        probs = prediction.probs()
        assert prediction.kind == "labels" and probs.shape == (6, 2, 3)
        assert prediction.present.tolist() == [True, False, False, True, False, True]
        rest = (1 - LABEL_CONFIDENCE) / 2
        torch.testing.assert_close(probs[:, 0, 1], torch.tensor([rest, 0, 0, LABEL_CONFIDENCE, 0, rest]))
        torch.testing.assert_close(probs.sum(0), torch.ones(2, 3))
        assert torch.equal(probs.argmax(0), prediction.argmax())

    def test_presence_is_that_of_the_whole_map_in_every_window(self):
        prediction = load_prediction(np.array([[0, 1, 2]], np.uint8), (1, 3))
        assert torch.equal(prediction.crop(0, 1, 1, 1), prediction.probs()[:, :, 1:2])

    def test_a_single_class_is_certain(self):
        torch.testing.assert_close(load_prediction(np.full((2, 2), 1), (2, 2)).probs()[1], torch.ones(2, 2))

    def test_void_pixels_are_uniform_over_the_classes_present(self):
        prediction = load_prediction(np.array([[1, 255, 3]]), (1, 3))
        torch.testing.assert_close(prediction.probs()[:, 0, 1], torch.tensor([0, 0.5, 0, 0.5]))
        assert prediction.void.tolist() == [[False, True, False]]
        assert prediction.argmax().tolist() == [[1, 255, 3]]

    def test_another_void_label(self):
        prediction = load_prediction(torch.tensor([[-1, 1, 2]]), (1, 6), ignore_index=-1)
        assert prediction.void[0].tolist() == [True, True, False, False, False, False]
        prediction = load_prediction(torch.tensor([[0, 1, 2]]), (1, 3), ignore_index=0, num_classes=3)
        torch.testing.assert_close(prediction.probs()[:, 0, 0], torch.tensor([0, 0.5, 0.5]))

    def test_all_void_needs_to_know_the_classes(self):
        labels = np.full((2, 2), 255)
        with pytest.raises(InputError, match=r"only void \(255\).*num_classes"):
            load_prediction(labels, (2, 2), kind="labels")
        prediction = load_prediction(labels, (2, 2), num_classes=4)
        torch.testing.assert_close(prediction.probs(), torch.full((4, 2, 2), 0.25))

    def test_ids_outside_the_classes_are_named(self):
        labels = np.array([[0, 7, 300], [19, 255, 7]])
        with pytest.raises(InputError, match="class ids 0 to 5 or void 255; got ids 7, 19, 300; try"):
            load_prediction(labels, (2, 3), num_classes=6)
        with pytest.raises(InputError, match="got ids -3"):
            load_prediction(np.array([[0, -3]]), (1, 2))
        with pytest.raises(InputError, match=r"ids 60000.*num_classes="):
            load_prediction(np.array([[0, 60000]]), (1, 2))
        assert load_prediction(np.array([[0, 2000]]), (1, 2), num_classes=2001).num_classes == 2001

    def test_0_and_255_may_be_a_binary_mask(self):
        labels = np.array([[0, 255]], np.uint8)
        with pytest.raises(InputError, match=r"mask // 255.*kind='labels'"):
            load_prediction(labels, (1, 2))
        assert load_prediction(labels, (1, 2), kind="labels").void.tolist() == [[False, True]]
        assert load_prediction(labels // 255, (1, 2)).num_classes == 2

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, bool])
    def test_every_integer_type(self, dtype):
        labels = np.array([[0, 1, 1]]).astype(dtype)
        assert load_prediction(labels, (1, 3)).argmax().tolist() == [[0, 1, 1]]

    def test_whole_floats_when_named(self):
        assert load_prediction(torch.tensor([[0.0, 2.0]]), (1, 2), kind="labels").argmax().tolist() == [[0, 2]]

    @pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I"])
    def test_pil_modes_with_ids(self, mode):
        ids = np.array([[0, 1, 1], [1, 0, 1]])
        if mode == "P":
            image = Image.fromarray(ids.astype(np.uint8), "P")
            image.putpalette([9, 9, 9, 200, 0, 0])
        elif mode == "1":
            image = Image.fromarray(ids.astype(bool))
        else:
            image = Image.fromarray(ids.astype({"L": np.uint8, "I;16": np.uint16, "I": np.int32}[mode]))
        assert image.mode == mode
        assert load_prediction(image, (2, 3)).argmax().tolist() == ids.tolist()

    def test_colours_are_no_ids(self):
        with pytest.raises(InputError, match=r"mode RGB.*colours"):
            load_prediction(Image.new("RGB", (3, 2)), (2, 3))


class TestFiles:
    @pytest.mark.parametrize("key", ["logits", "probs", "labels"])
    def test_npz_says_its_kind(self, tmp_path, key):
        values = {"logits": logits(), "probs": logits().softmax(0), "labels": logits().argmax(0)}[key].numpy()
        np.savez(tmp_path / "a.npz", **{key: values}, other=1)
        array, kind = read_prediction_file(tmp_path / "a.npz")
        assert kind == key
        np.testing.assert_array_equal(array, values)
        prediction = load_prediction(tmp_path / "a.npz", (9, 9))
        assert prediction.kind == key
        assert torch.equal(prediction.probs(), load_prediction(values, (9, 9)).probs())

    def test_the_key_settles_what_values_leave_open(self, tmp_path):
        np.savez(tmp_path / "a.npz", logits=np.full((3, 2, 2), 0.9))
        assert load_prediction(tmp_path / "a.npz", (2, 2)).kind == "logits"
        with pytest.raises(InputError, match="file that holds logits"):
            load_prediction(tmp_path / "a.npz", (2, 2), kind="probs")

    def test_npy_is_told_by_its_values(self, tmp_path):
        np.save(tmp_path / "a.npy", logits().numpy())
        assert load_prediction(str(tmp_path / "a.npy"), (5, 7)).kind == "logits"
        np.save(tmp_path / "a.npy", logits().argmax(0).numpy())
        assert load_prediction(str(tmp_path / "a.npy"), (5, 7)).kind == "labels"

    def test_png_keeps_palette_indices(self, tmp_path):
        ids = np.array([[0, 2, 1], [2, 255, 0]], np.uint8)
        image = Image.fromarray(ids, "P")
        image.putpalette([0, 0, 0, 255, 0, 0, 255, 255, 255] + [7] * 759)
        image.save(tmp_path / "a.PNG")
        array, kind = read_prediction_file(tmp_path / "a.PNG")
        assert kind == "labels" and array.tolist() == ids.tolist()
        assert load_prediction(tmp_path / "a.PNG", (2, 3)).void.sum() == 1

    def test_png_of_0_and_255_is_left_open_unless_named(self, tmp_path):
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "a.png")
        with pytest.raises(InputError, match="only the values 0 and 255"):
            load_prediction(tmp_path / "a.png", (1, 2))
        assert load_prediction(tmp_path / "a.png", (1, 2), kind="labels").void.sum() == 1

    def test_16_bit_png(self, tmp_path):
        Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "a.png")
        assert load_prediction(tmp_path / "a.png", (1, 2)).argmax().tolist() == [[0, 300]]

    def test_a_jpeg_called_png(self, tmp_path):
        Image.new("L", (4, 4)).save(tmp_path / "a.png", format="JPEG")
        with pytest.raises(InputError, match="lossless"):
            load_prediction(tmp_path / "a.png", (4, 4))

    def test_bad_files(self, tmp_path):
        np.savez(tmp_path / "key.npz", scores=np.zeros(3))
        np.savez(tmp_path / "pickle.npz", logits=np.array([{"a": 1}], dtype=object))
        (tmp_path / "pickle.npy").write_bytes(b"\x80\x04}q\x00.")
        np.savez(tmp_path / "whole.npz", logits=np.random.default_rng(0).random((4, 30, 30)))
        whole = (tmp_path / "whole.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "flipped.npz").write_bytes(whole[:5000] + bytes(200) + whole[5200:])
        np.save(tmp_path / "whole.npy", np.zeros((4, 30, 30)))
        (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:2000])
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999, 999), }"
        claim = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
        (tmp_path / "huge.npy").write_bytes(claim)
        with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
            archive.writestr("logits.npy", claim)
        (tmp_path / "empty.npz").touch()
        (tmp_path / "a.tif").write_bytes(b"x")
        (tmp_path / "a.pt").write_bytes(b"x")
        for name, message in {
            "key.npz": "key logits, probs or labels; got keys: scores",
            "pickle.npz": "without pickled objects",
            "pickle.npy": "without pickled objects",
            "cut.npz": "saving it again",
            "flipped.npz": "saving it again",
            "cut.npy": "saving it again",
            "huge.npy": "saving it again",
            "huge.npz": "saving it again",
            "empty.npz": "0 bytes",
            "a.tif": ".npz, .npy or .png",
            "a.pt": ".npz, .npy or .png",
            "none.npz": "does not exist",
        }.items():
            with pytest.raises(InputError, match=message) as caught:
                load_prediction(tmp_path / name, (4, 4))
            assert name in str(caught.value) and "\n" not in str(caught.value)
