import os
import stat

import pytest

from ddps import atomic
from ddps.atomic import atomic_write
from ddps.errors import InputError


def test_writes_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"whole")
        assert not (tmp_path / "a.bin").exists()
        assert os.path.dirname(file.name) == str(tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_old_file(tmp_path, error):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_write(target, overwrite=True) as file:
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_refuses_an_existing_file_before_anything_is_written(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="overwrite=True"), atomic_write(target):
        pytest.fail("the block must not run")
    assert target.read_bytes() == b"old"
    with atomic_write(target, overwrite=True) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise PermissionError("no hard links here")

        monkeypatch.setattr(atomic.os, "link", refuse)
    target = tmp_path / "a.bin"
    with pytest.raises(InputError, match="does not exist yet"), atomic_write(target) as file:
        file.write(b"ours")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_works_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(atomic.os, "link", refuse)
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"whole")
    assert (tmp_path / "a.bin").read_bytes() == b"whole"


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_a_name_of_the_longest_length_works(tmp_path):
    name = "é" * 125 + ".png"
    with atomic_write(tmp_path / name) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == [name]


def test_missing_folder_and_folder_as_target(tmp_path):
    with pytest.raises(InputError, match="creating"), atomic_write(tmp_path / "no" / "a.bin"):
        pass
    with pytest.raises(InputError, match="file name"), atomic_write(tmp_path, overwrite=True):
        pass
