from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ddps.errors import InputError
from ddps.review import Move, Row
from ddps.review_rows import RowFile, read_rows


def row(name, changed=1.0):
    return Row(name, changed, 2.0, (Move(0, 1, changed),), 0.1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def add(path, *rows):
    file = RowFile(path)
    for one in rows:
        file.add(one)
    file.close()


def test_the_last_row_of_a_name_counts(path):
    add(path, row("a"), row("b"), row("a", 3.0))
    add(path, row("c"))
    assert read_rows(path) == {"a": row("a", 3.0), "b": row("b"), "c": row("c")}


def test_a_row_is_in_the_file_before_it_is_closed(path):
    file = RowFile(path)
    file.add(row("a"))
    assert read_rows(path) == {"a": row("a")}
    file.close()


def test_a_cut_line_is_left_out_and_then_cut_off(path):
    add(path, row("a"), row("b"))
    whole = path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert list(read_rows(path)) == ["a"]
    add(path, row("c"))
    assert list(read_rows(path)) == ["a", "c"]


def test_a_cut_line_longer_than_a_block_is_cut_off(path, monkeypatch):
    monkeypatch.setattr("ddps.review_rows.BLOCK", 7)
    add(path, row("a"))
    whole = path.read_bytes()
    for rest in (b"", b"x", b"x" * 7, b"x" * 50):
        path.write_bytes(whole + rest)
        RowFile(path).close()
        assert path.read_bytes() == whole
    path.write_bytes(b"x" * 50)
    RowFile(path).close()
    assert not path.exists()


def test_rows_of_little_change_are_held_without_their_moves(path):
    nothing = Row("c", None, None, (Move(1, 2, 0.5),), 0.1)
    add(path, row("a", 1.0), row("b", 2.0), nothing)
    rows = read_rows(path, moves_from=2.0)
    assert rows["b"] == row("b", 2.0) and rows["a"] == replace(row("a", 1.0), moves=()) and rows["c"].moves == ()
    assert read_rows(path)["a"].moves


def test_anything_else_is_refused(path):
    add(path, row("a"))
    for line in (b"text", b"{}", b"3", b"\xff"):
        path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + line + b"\n")
        with pytest.raises(InputError, match="line 2"):
            read_rows(path)


def test_no_rows_leave_no_file(path):
    RowFile(path).close()
    assert not path.exists() and read_rows(path) == {}


def test_rows_of_many_threads_do_not_mix(path):
    file = RowFile(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: file.add(row(str(i))), range(200)))
    file.close()
    assert sorted(read_rows(path), key=int) == [str(i) for i in range(200)]


def test_any_name_survives(path):
    names = ['"\\', "a\nb", "ü→", "\udcff", ""]
    add(path, *(row(name) for name in names))
    assert list(read_rows(path)) == names
