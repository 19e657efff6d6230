"""A streamed prediction says of every window what the prediction in memory says."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import large_prediction
from ddps.errors import InputError
from ddps.large_prediction import StreamedPrediction, load_streamed
from ddps.prediction_window import LabelWindow
from ddps.predictions import load_prediction
from ddps.tiling import Tile

SIZE = (70, 100)
WINDOWS = [Tile(0, 0, *SIZE), Tile(0, 0, 1, 1), Tile(33, 48, 37, 52), Tile(69, 0, 1, 100)]
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.standard_normal((4, 18, 25))).astype(np.float32)
PROBS = torch.from_numpy(LOGITS).softmax(0).numpy()
LABELS = RNG.integers(0, 5, SIZE).astype(np.uint8)
LABELS[10:20, 10:40] = 255


def streamed(source, kind="auto", ignore_index=255, num_classes=None) -> StreamedPrediction:
    judge = partial(load_prediction, size=SIZE, kind=kind, ignore_index=ignore_index, num_classes=num_classes)
    return load_streamed(source, SIZE, judge)


CASES = {
    "logits": (LOGITS, {}),
    "float16 logits": (LOGITS.astype(np.float16), {}),
    "int8 logits": ((20 * LOGITS).astype(np.int8), {}),
    "probabilities": (PROBS, {}),
    "rough probabilities": ((PROBS * 255).round() / 255, {"kind": "probs"}),
    "logits at image size": (RNG.standard_normal((2, *SIZE)), {}),
    "foreground logits": (LOGITS[:1], {}),
    "foreground": (PROBS[:1], {"kind": "probs"}),
    "labels": (LABELS, {}),
    "low labels": (LABELS[::4, ::4].astype(np.int64), {}),
    "labels of 9": (LABELS, {"num_classes": 9}),
    "yes and no": (LABELS[:60] > 2, {}),
    "negative void": (np.where(LABELS == 255, -1, LABELS.astype(np.int16)), {"ignore_index": -1}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scan", [1 << 22, 50])
def test_windows_are_those_of_the_whole(name, scan, tmp_path, monkeypatch):
    monkeypatch.setattr(large_prediction, "SCAN_VALUES", scan)
    values, options = CASES[name]
    np.save(tmp_path / "prediction.npy", values)
    whole, known = load_prediction(values, SIZE, **options), streamed(tmp_path / "prediction.npy", **options)
    for attribute in ("size", "kind", "num_classes", "ignore_index"):
        assert getattr(known, attribute) == getattr(whole, attribute)
    assert torch.equal(known.present, whole.present)
    for window in WINDOWS:
        where = (window.top, window.left, window.height, window.width)
        torch.testing.assert_close(known.crop(*where), whole.crop(*where), rtol=0, atol=1e-6)
        some = torch.arange(min(2, whole.num_classes))
        grouped = known.window(*where).grouped(some)
        torch.testing.assert_close(grouped, whole.window(*where).grouped(some), rtol=0, atol=1e-6)
        assert torch.equal(known.window(*where).own(some, grouped), whole.window(*where).own(some, grouped))


def test_a_small_png(tmp_path):
    picture = Image.fromarray(LABELS)
    picture.putpalette([7] * 768)
    picture.save(tmp_path / "labels.png")
    known = streamed(tmp_path / "labels.png")
    window = known.window(0, 0, *SIZE)
    assert isinstance(window, LabelWindow) and torch.equal(window.labels, torch.from_numpy(LABELS).long())


@pytest.mark.parametrize(
    "values", [LOGITS * np.where(np.arange(18) == 16, np.nan, 1)[:, None], LOGITS * np.float64(1e39)]
)
def test_values_that_are_not_finite(values):
    with pytest.raises(InputError, match="NaN or infinite values in rows 0 to 17"):
        streamed(values)


def spoilt(value: float) -> np.ndarray:
    """Probabilities with one pixel that is none."""
    probs = PROBS.copy()
    probs[2, 11, 13] = value
    return probs


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (spoilt(0.9), {"kind": "probs"}),
        (spoilt(-0.2), {"kind": "probs"}),
        (np.clip(spoilt(0.9), 0, 1), {}),
        ((PROBS * 255).astype(np.uint8), {}),
        (LABELS, {"num_classes": 3}),
        (LABELS.astype(np.int64) * 1000, {}),
        (np.where(LABELS == 255, 255, 0).astype(np.uint8), {}),
        (np.full(SIZE, 255, np.uint8), {}),
        (-LABELS.astype(np.int64) - 1, {}),
    ],
)
@pytest.mark.parametrize("scan", [1 << 22, 50])
def test_one_bad_pixel_is_found_and_named_as_ever(values, options, scan, monkeypatch):
    monkeypatch.setattr(large_prediction, "SCAN_VALUES", scan)
    with pytest.raises(InputError) as whole:
        load_prediction(values, SIZE, **options)
    with pytest.raises(InputError) as parts:
        streamed(values, **options)
    assert str(parts.value) == str(whole.value)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (LOGITS[None], r"shape \(1, 4, 18, 25\)"),
        (LOGITS[:, :0], r"shape \(4, 0, 25\)"),
        (LOGITS[0], "whole class ids"),
        (LOGITS.astype(np.complex64), "a prediction of numbers; got complex64"),
        (np.arange(70_000, 140_000).reshape(700, 100), "more than 65536 different numbers"),
    ],
)
def test_wrong_shapes_and_types(values, match):
    with pytest.raises(InputError, match=match):
        streamed(values)


def test_files_that_are_no_prediction(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "labels.bmp")
    with pytest.raises(InputError, match=".npy, .tif or .png"):
        streamed(tmp_path / "labels.bmp")
    tifffile = pytest.importorskip("tifffile", reason="reads a TIFF")
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([LABELS] * 3, 2), photometric="rgb")
    with pytest.raises(InputError, match=r"a label map .*shape \(70, 100, 3\)"):
        streamed(tmp_path / "rgb.tif")
