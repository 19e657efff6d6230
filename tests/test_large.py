"""`refine_large` gives `refine`'s answer, holds little in memory, and writes whole files or none."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import InferenceConfig, LabelSpace, LogitsNetwork
from ddps.errors import InputError
from ddps.large import LargeSummary, label_type, peak_memory, refine_large
from ddps.large_canvas import LargeCanvas
from ddps.large_sources import ArrayRaster
from ddps.refiner import build_network
from ddps.tile_chain import TileChain

SIZE = (200, 290)
TILE = 96
TINY = DDPSConfig(
    network=LogitsNetwork(image_widths=(8, 8), slot_widths=(8, 8), max_slots=4),
    inference=InferenceConfig(steps=2, overlap=16),
)


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def logits(classes: int = 4, size: tuple[int, int] = (50, 73)) -> np.ndarray:
    return (3 * np.random.default_rng(1).standard_normal((classes, *size))).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).softmax(0).numpy()


def label_map(size: tuple[int, int] = SIZE, classes: int = 4) -> np.ndarray:
    """Smooth regions, and a corner that is void."""
    noise = np.random.default_rng(2).standard_normal((classes, *size))
    labels = np.stack([ndimage.gaussian_filter(one, 12) for one in noise]).argmax(0).astype(np.uint8)
    labels[:30, :40] = 255
    return labels


def run(refiner: DDPSRefiner, folder: Path, image: np.ndarray, prediction: np.ndarray, **options) -> LargeSummary:
    """From .npy files to .npy files: labels, changed, uncertainty."""
    np.save(folder / "image.npy", image)
    np.save(folder / "prediction.npy", prediction)
    names = {name: folder / f"{name}.npy" for name in ("changed", "uncertainty")}
    return refine_large(
        refiner,
        folder / "image.npy",
        folder / "prediction.npy",
        folder / "labels.npy",
        tile=TILE,
        overwrite=True,
        **names,
        **options,
    )


def outputs(folder: Path) -> list[np.ndarray]:
    return [np.load(folder / f"{name}.npy") for name in ("labels", "changed", "uncertainty")]


PREDICTIONS = {
    "logits at stride 4": (logits(), {}),
    "logits of eight classes": (logits(8), {}),
    "probabilities": (softmax(logits(3, SIZE)), {}),
    "half precision": (logits().astype(np.float16), {}),
    "a sigmoid foreground": (logits(1), {}),
    "probabilities of a foreground": (1 / (1 + np.exp(-logits(1))), {"kind": "probs"}),
    "label map": (label_map(), {}),
    "small label map": (label_map((67, 97)).astype(np.int64), {"ignore_index": 255}),
    "two classes": (label_map() % 2, {}),
    "two samples and guidance": (logits(), {"num_samples": 2, "guidance_scale": 0.5, "seed": 5, "steps": 3}),
    "one step": (label_map(), {"sampler": "single"}),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_answer_is_that_of_refine(tiny_refiner, tmp_path, name):
    prediction, options = PREDICTIONS[name]
    whole = tiny_refiner.refine(picture(), prediction, tile=TILE, **options)
    summary = run(tiny_refiner, tmp_path, picture(), prediction, **options)
    labels, changed, uncertainty = outputs(tmp_path)
    assert labels.dtype == changed.dtype == uncertainty.dtype == np.uint8
    assert np.array_equal(labels, whole.labels) and np.array_equal(changed == 255, whole.changed)
    assert np.abs(uncertainty - np.round(255 * whole.uncertainty)).max() <= 1
    assert summary.tiles > 6 and summary.size == SIZE
    assert 0 < summary.changed == pytest.approx(100 * whole.changed.mean())


def test_what_is_counted(tiny_refiner, tmp_path):
    summary = run(tiny_refiner, tmp_path, picture(), label_map(), num_classes=6)
    labels, changed, _ = outputs(tmp_path)
    known = labels[labels != 255]
    assert summary.num_classes == 6 and len(summary.shares) == 6
    assert summary.shares == pytest.approx(tuple(100 * (known == k).mean() for k in range(6)))
    assert summary.changed == pytest.approx(100 * (changed == 255).mean())
    assert summary.seconds > 0 and summary.as_dict()["size"] == SIZE


def test_void_stays_void_and_keeps_a_number_of_its_own(tiny_refiner, tmp_path):
    labels = label_map().astype(np.int32)
    void = labels == 255
    labels[void] = -1
    run(tiny_refiner, tmp_path, picture(), labels, ignore_index=-1)
    refined, changed, _ = outputs(tmp_path)
    assert (refined[void] == 255).all() and (refined[~void] < 4).all() and not changed[void].any()


def test_many_classes_take_16_bits(tiny_refiner, tmp_path):
    labels = label_map().astype(np.uint16)
    labels[labels == 3], labels[labels == 255] = 299, 65535
    whole = tiny_refiner.refine(picture(), labels, tile=TILE, ignore_index=65535)
    run(tiny_refiner, tmp_path, picture(), labels, ignore_index=65535)
    refined = outputs(tmp_path)[0]
    assert refined.dtype == np.uint16 and np.array_equal(refined, whole.labels)
    assert label_type(255) == np.uint8 and label_type(256) == np.uint16
    with pytest.raises(InputError, match="at most 65535 classes; got 65536"):
        label_type(65536)


@pytest.fixture(scope="module")
def gentle() -> DDPSRefiner:
    """One that is nowhere so sure of another class that nothing of a pixel's own is left."""
    torch.manual_seed(0)
    network = build_network(TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return DDPSRefiner(TINY, network, device="cpu")


def far_apart() -> np.ndarray:
    """Two classes that meet on the left; the right half shows one class, and void."""
    labels = np.zeros(SIZE, np.uint8)
    labels[40:90, 20:60] = 1
    labels[100:140, 250:] = 255
    return labels


def test_tiles_of_one_class_are_never_run_and_the_answer_is_the_same(gentle, tmp_path, monkeypatch):
    whole = gentle.refine(picture(), far_apart(), tile=TILE, kind="labels")
    runs = []
    refine = TileChain.refine

    def watched(self, image, slots, *rest):
        runs.append(len(slots))
        return refine(self, image, slots, *rest)

    monkeypatch.setattr(TileChain, "refine", watched)
    summary = run(gentle, tmp_path, picture(), far_apart(), kind="labels")
    assert set(runs) == {2}
    assert summary.skipped == pytest.approx(100 * (1 - len(runs) / summary.tiles)) and 30 < summary.skipped < 100
    labels, changed, uncertainty = outputs(tmp_path)
    assert np.array_equal(labels, whole.labels) and np.array_equal(changed == 255, whole.changed)
    labelled = far_apart() != 255
    assert uncertainty[labelled].max() > 20
    assert np.abs(uncertainty - np.round(255 * whole.uncertainty))[labelled].max() <= 1


def sure_on_the_right(peak: float) -> np.ndarray:
    """(2, H, W): noise on the left, class 0 with probability `peak` on the right."""
    probs = softmax(logits(2, SIZE))
    probs[:, :, 120:] = np.array([peak, 1 - peak], np.float32)[:, None, None]
    return probs


def test_confident_tiles_are_left_alone_where_that_is_asked_for(tiny_refiner, tmp_path):
    as_refine = run(tiny_refiner, tmp_path, picture(), sure_on_the_right(0.99))
    assert as_refine.skipped == 0
    sparing = run(tiny_refiner, tmp_path, picture(), sure_on_the_right(0.99), confident=0.98)
    assert 0 < sparing.skipped < 100
    labels, changed, _ = outputs(tmp_path)
    assert (labels[:, 200:] == 0).all() and not changed[:, 200:].any()
    # what refine itself is sure of needs no asking
    sure = run(tiny_refiner, tmp_path, picture(), sure_on_the_right(0.9995))
    assert sure.skipped == sparing.skipped
    assert np.array_equal(
        outputs(tmp_path)[0], tiny_refiner.refine(picture(), sure_on_the_right(0.9995), tile=TILE).labels
    )


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_memory_does_not_grow_with_the_height(tiny_refiner, tmp_path, monkeypatch, kind):
    pieces, reads = [], []
    add, read = LargeCanvas.add, ArrayRaster.read

    def watched_add(self, *arguments):
        add(self, *arguments)
        pieces.append(sum(piece.probs.numel() for piece in self.pieces))

    def watched_read(self, *arguments):
        values = read(self, *arguments)
        reads.append(values.nbytes)
        return values

    monkeypatch.setattr(LargeCanvas, "add", watched_add)
    monkeypatch.setattr(ArrayRaster, "read", watched_read)
    monkeypatch.setattr("ddps.large_prediction.SCAN_VALUES", 1 << 14)
    most = []
    for height in (300, 1500):
        size = (height, 200)
        pieces.clear()
        reads.clear()
        prediction = label_map(size) if kind == "labels" else logits(3, size)
        np.save(tmp_path / "image.npy", picture(size))
        np.save(tmp_path / "prediction.npy", prediction)
        paths = [tmp_path / f"{name}.npy" for name in ("image", "prediction", "labels")]
        tracemalloc.start()
        refine_large(tiny_refiner, *paths, tile=TILE, steps=1, overwrite=True)
        most.append((max(pieces), max(reads), tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    (few, small, before), (still_few, still_small, after) = most
    # three tiles across: one row of them, and two more
    assert max(few, still_few) <= 5 * TILE * TILE * 4
    assert max(small, still_small) <= max(3 * TILE * TILE, 4 << 14)
    assert after < before + 100_000 < picture((1500, 200)).nbytes + 1_000_000


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("a", "b", "c")])
def test_an_interruption_leaves_nothing_behind(tiny_refiner, tmp_path, monkeypatch, suffix, error):
    if suffix == ".tif":
        pytest.importorskip("tifffile", reason="writes a TIFF")
    calls = []

    def fail(self, *_):
        calls.append(1)
        if len(calls) == 3:
            raise error

    monkeypatch.setattr(DDPSRefiner, "_refine_tile", fail)
    (tmp_path / f"labels{suffix}").write_bytes(b"as it was")
    paths = [tmp_path / f"{name}{suffix}" for name in ("labels", "changed")]
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        refine_large(tiny_refiner, picture(), logits(), paths[0], changed=paths[1], tile=TILE, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [f"labels{suffix}"]
    assert (tmp_path / f"labels{suffix}").read_bytes() == b"as it was"


def test_tiff_to_tiff(tiny_refiner, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="reads and writes TIFFs")
    tifffile.imwrite(tmp_path / "image.tif", picture(), tile=(64, 80), compression="zlib", bigtiff=True)
    tifffile.imwrite(tmp_path / "prediction.tiff", label_map(), rowsperstrip=16)
    out, other = tmp_path / "labels.tif", tmp_path / "uncertainty.tif"
    refine_large(tiny_refiner, tmp_path / "image.tif", tmp_path / "prediction.tiff", out, uncertainty=other, tile=TILE)
    whole = tiny_refiner.refine(picture(), label_map(), tile=TILE)
    assert np.array_equal(tifffile.imread(out), whole.labels)
    assert np.abs(tifffile.imread(other) - np.round(255 * whole.uncertainty)).max() <= 1
    with tifffile.TiffFile(out) as file:
        page = file.pages[0]
        assert page.is_tiled and page.photometric.name == "PALETTE"
        assert [tuple(colour // 257) for colour in page.colormap.T[:4]] == list(whole.palette)


def test_bad_calls_are_refused_before_anything_is_written(tiny_refiner, tmp_path):
    out = tmp_path / "labels.npy"

    def refused(match, image=picture(), prediction=logits(), path=out, **options):  # noqa: B008
        with pytest.raises(InputError, match=match) as caught:
            refine_large(tiny_refiner, image, prediction, path, **options)
        assert "\n" not in str(caught.value)

    refused("ending in .tif, .tiff or .npy", path=tmp_path / "labels.png")
    refused("neither inputs nor each other", changed=out)
    refused("existing folder", path=tmp_path / "none" / "labels.npy")
    refused("confident from 0.5 to 1; got 2", confident=2)
    refused("steps as a whole number", steps=0)
    refused("values that tell logits from probabilities", prediction=np.full((1, 50, 70), 0.5, np.float32))
    refused("kind|probabilities", prediction=logits(), kind="probs")
    refused("a label map", prediction=logits(), kind="labels")
    refused(r"class ids 0 to 2 or void 255; got ids 3", prediction=label_map(), num_classes=3)
    refused("whole class ids", prediction=label_map().astype(np.float32))
    refused(r"shape \(2, 4, 50, 73\)", prediction=np.stack([logits()] * 2))
    refused("shape of|of shape", image=picture().transpose(2, 0, 1))
    refused("uint8, or of float", image=picture().astype(np.uint16))
    refused("a numpy array; got int", image=3)
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"here")
    refused("does not exist yet")
    own = np.save(tmp_path / "image.npy", picture()) or tmp_path / "image.npy"
    refused("neither inputs", image=own, path=own, overwrite=True)
    assert out.read_bytes() == b"here"


def test_models_on_features_are_refused(tiny_refiner, tmp_path):
    other = DDPSRefiner.__new__(DDPSRefiner)
    other.network = torch.nn.Identity()
    with pytest.raises(InputError, match="conditioned on features"):
        refine_large(other, picture(), logits(), tmp_path / "labels.npy")


def test_the_weights_own_classes_count(tiny_refiner, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_refiner, "config", replace(tiny_refiner.config, labels=LabelSpace(num_classes=5)))
    with pytest.raises(InputError, match="over 5 classes; got 4"):
        refine_large(tiny_refiner, picture(), logits(), tmp_path / "labels.npy")
    refine_large(tiny_refiner, picture(), label_map(), tmp_path / "labels.npy", tile=128, steps=1)


def test_peak_memory_is_in_bytes():
    assert peak_memory() is None or peak_memory() > 50e6
