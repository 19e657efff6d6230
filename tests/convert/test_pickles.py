"""What a stranger's file can be, and that nothing in it ever runs."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from ddps.convert.pickles import Stub, read_checkpoint
from ddps.errors import InputError


class Runs:
    """Unpickled without care, it writes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


class Evaluates(Runs):
    def __reduce__(self):
        return eval, (f"open({str(self.trace)!r}, 'w').close()",)


class Loads(Runs):
    """Through numpy, whose own functions unpickle what they are given."""

    def __reduce__(self):
        return np.load, (str(self.trace),)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 500 and "weights_only" not in said
    return said


def some_state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0), "b.count": torch.tensor(3)}


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "older format"])
def test_mmcv_files_are_read(tmp_path, archive):
    meta = {
        "iter": 5,
        "score": np.float64(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "short": np.float32(1.5),
        "list": np.arange(3),
        "nested": OrderedDict(deep=[np.float64(1)]),
    }
    path = tmp_path / "model.pth"
    torch.save({"meta": meta, "state_dict": some_state()}, path, _use_new_zipfile_serialization=archive)
    content = read_checkpoint(path)
    assert content["meta"]["iter"] == 5
    # Not one of numpy's own functions was called, not even for numbers.
    assert all(isinstance(content["meta"][name], Stub) for name in ("score", "count", "flag", "short", "list"))
    state = content["state_dict"]
    assert all(torch.equal(state[name], value) for name, value in some_state().items())


def test_numpy_1_files_are_read(tmp_path):
    """Files of numpy 1 call the same things numpy.core, as the released ones do."""
    path = tmp_path / "new.pth"
    torch.save({"meta": {"score": np.float64(0.5)}, "state_dict": some_state()}, path)
    renamed = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(renamed, "w") as old:
        for entry in new.infolist():
            old.writestr(entry, new.read(entry).replace(b"numpy._core.", b"numpy.core."))
    assert b"cnumpy.core.multiarray" in renamed.read_bytes()
    assert isinstance(read_checkpoint(renamed)["meta"]["score"], Stub)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "older format"])
@pytest.mark.parametrize("kind", [Runs, Evaluates, Loads])
def test_nothing_in_a_pickle_runs(tmp_path, kind, archive):
    trace = tmp_path / "trace"
    hostile = {"meta": {"seed": kind(trace)}, "state_dict": some_state()}
    path = tmp_path / "hostile.pth"
    torch.save(hostile, path, _use_new_zipfile_serialization=archive)
    said = refusal(path)
    assert not trace.exists()
    assert "a pickle that wants to run" in said and "was not run" in said
    if kind is not Loads:  # the test itself holds: opened without care, the file leaves its trace
        torch.load(path, weights_only=False)
        assert trace.exists()


def test_a_bare_pickle_does_not_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "hostile.pth"
    path.write_bytes(pickle.dumps({"state_dict": Runs(trace)}))
    refusal(path)
    assert not trace.exists()


def test_stubs_for_text(tmp_path):
    path = tmp_path / "stub.pth"
    path.write_text("placeholder...\n")
    assert "a text file of 15 bytes that begins with 'placeholder...'" in refusal(path)
    path.write_text("<html>\n" + "<p>Not found ü</p>\n" * 1000, encoding="utf-8")
    assert "a text file of" in refusal(path)


def test_lfs_pointers(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 524288000\n")
    assert "a git-lfs pointer" in refusal(path) and "git lfs pull" in refusal(path)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "older format"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_files_cut_short(tmp_path, share, archive):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": {"w": torch.rand(5000)}}, path, _use_new_zipfile_serialization=archive)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    said = refusal(path)
    assert "downloading it again" in said
    if archive:
        assert "a file that was cut short" in said


def test_other_files(tmp_path):
    path = tmp_path / "model.pth"
    assert "does not exist" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    assert "folder" in refusal(tmp_path)
    for data in (
        b"\x00" * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"PK\x03\x04" + b"\x00" * 50,
        os.urandom(400),
    ):
        path.write_bytes(data)
        refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"\xff\xd8")
    refusal(path)


def test_what_is_no_dictionary(tmp_path):
    path = tmp_path / "model.pth"
    for content in (torch.rand(3), [1, 2], None):
        torch.save(content, path)
        assert "a pickled" in refusal(path)


def test_whole_modules_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "a pickle that wants to run torch.nn.modules.linear.Linear" in refusal(path)


def test_a_torch_that_cannot_open_pickles_safely_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": some_state()}, path)
    for version, fine in (("2.5.1+cu121", False), ("2.6.0", True), ("2.13.0+cpu", True), ("3.0.0", True)):
        monkeypatch.setattr(torch, "__version__", version)
        if fine:
            read_checkpoint(path)
        else:
            assert "torch 2.6 or newer" in refusal(path)
