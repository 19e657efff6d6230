import errno
import os
import stat
import sys
from pathlib import Path

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


def test_the_temporary_name_is_not_interned(tmp_path, monkeypatch):
    """The table of interned strings would grow with every file that a long run writes."""
    interned, intern = [], sys.intern
    monkeypatch.setattr(sys, "intern", lambda string: interned.append(string) or intern(string))
    target = Path(f"{tmp_path}/seen.bin")
    with atomic_write(target) as file:
        temporary = os.path.basename(file.name)
    assert temporary not in interned
    target.with_name(temporary)
    assert temporary in interned, "pathlib no longer interns; this test says nothing"


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


def test_what_fails_names_the_file_that_was_to_be(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/a\.bin'"), atomic_write(tmp_path / "a.bin"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_read_that_fails_in_the_block_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="'.*gone'"), atomic_write(tmp_path / "a.bin"):
        (tmp_path / "gone").read_bytes()


def test_a_folder_that_goes_away_meanwhile(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(FileNotFoundError, match=r"b.a\.bin"), atomic_write(tmp_path / "b" / "a.bin") as file:
        os.unlink(file.name)
        (tmp_path / "b").rmdir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_full_disk_is_said_with_the_name(tmp_path, monkeypatch):
    """Every write goes to a device that has no space left."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    said = r"No space left on device: '.*/a\.bin'"
    with pytest.raises(OSError, match=said), atomic_write(target, overwrite=True) as file:
        with open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), file.fileno())
        file.write(b"new")
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


@pytest.fixture
def left(tmp_path):
    """What a killed process leaves."""
    paths = [tmp_path / ".a.bin.0123456789ab.tmp", tmp_path / ".line\nbreak.png.00ff00ff00ff.tmp"]
    for path in paths:
        path.write_bytes(b"half")
    return paths


@pytest.mark.skipif(not atomic.LOCKS, reason="a system without file locks")
class TestLeftovers:
    def test_they_are_removed_and_nothing_else(self, tmp_path, left):
        others = [".a.bin.0123456789ab.tm", "a.bin.0123456789ab.tmp", ".a.0123.tmp", ".b.tmp", ".x.0123456789AB.tmp"]
        for name in others:
            (tmp_path / name).write_bytes(b"precious")
        folder, link = tmp_path / ".c.0123456789ab.tmp", tmp_path / ".d.0123456789ab.tmp"
        folder.mkdir()
        link.symlink_to(others[0])
        assert atomic.remove_leftovers(tmp_path, tmp_path / "none") == 2
        assert set(os.listdir(tmp_path)) == {*others, folder.name, link.name}

    def test_what_is_being_written_stays(self, tmp_path, left):
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"whole")
            assert atomic.remove_leftovers(tmp_path) == 2
        assert (tmp_path / "a.bin").read_bytes() == b"whole" and os.listdir(tmp_path) == ["a.bin"]

    def test_a_file_taken_before_its_lock_is_made_again(self, tmp_path, monkeypatch):
        lock, seen = atomic._lock, []

        def late(descriptor, wait=False):
            if wait and not seen:
                seen.append(1)
                assert atomic.remove_leftovers(tmp_path) == 1
            return lock(descriptor, wait)

        monkeypatch.setattr(atomic, "_lock", late)
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"whole")
        assert seen and (tmp_path / "a.bin").read_bytes() == b"whole" and os.listdir(tmp_path) == ["a.bin"]

    def test_without_locks_they_stay(self, tmp_path, left, monkeypatch):
        monkeypatch.setattr(atomic, "LOCKS", False)
        assert atomic.remove_leftovers(tmp_path) == 0 and len(os.listdir(tmp_path)) == 2
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"whole")
        assert (tmp_path / "a.bin").read_bytes() == b"whole"
