import errno
from pathlib import Path

import numpy as np
import pytest

from ddps.cli.refine_item import CannotWrite, Classes, Job, is_done, load, of_the_disk
from ddps.config import LabelSpace
from ddps.errors import InputError

CLASSES = Classes(LabelSpace(), 255, "auto", void_known=False, keep_ids=False)


@pytest.fixture
def job(data_set):
    return Job(data_set.images / "a.png", data_set.predictions / "a.npz", Path("a.png"), None)


def test_logits_stay_as_they_are(job):
    loaded = load(job, CLASSES)
    assert loaded.labels is None and loaded.kind == "logits" and loaded.values.shape == (3, 10, 14)
    assert loaded.before.shape == (40, 56)


def test_label_maps_in_any_file(job, data_set, tmp_path):
    labels = load(Job(job.image, data_set.masks / "a.png", job.mask, None), CLASSES).before
    np.save(tmp_path / "a.npy", labels)
    np.savez(tmp_path / "a.npz", labels=labels.astype(np.float32))
    for name in ("a.npy", "a.npz"):
        loaded = load(Job(job.image, tmp_path / name, job.mask, None), CLASSES)
        assert loaded.kind == "labels" and loaded.labels.form is None
        np.testing.assert_array_equal(loaded.before, labels)


def test_a_kind_that_the_file_contradicts(job):
    with pytest.raises(InputError, match="--kind probs; got a.npz, which holds logits; try --kind logits"):
        load(job, Classes(LabelSpace(), 255, "probs", False, False))


def test_whole_outputs(tmp_path, tiny_refiner):
    refined = tiny_refiner.refine(np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.int64))
    for name in ("x.png", "x.npz"):
        job = Job(Path("x.jpg"), None, tmp_path / name, None)
        assert not is_done(job)
        refined.save(job.mask)
        assert is_done(job)
        whole = job.mask.read_bytes()
        for cut in (0, 1, 7, len(whole) // 2, len(whole) - 1):
            job.mask.write_bytes(whole[:cut])
            assert not is_done(job), (name, cut)


def test_errors_of_the_disk_and_of_an_item():
    assert isinstance(of_the_disk(OSError(errno.ENOSPC, "full")), CannotWrite)
    other = OSError(errno.ENAMETOOLONG, "long")
    assert of_the_disk(other) is other
