"""What two processes of one run agree on."""

import pytest

from ddps import InputError
from ddps.processes import Group, is_first, processes

from .torchrun import torchrun

SCRIPT = """
import sys
from ddps.errors import InputError
from ddps.processes import is_first, processes

with processes() as group:
    assert group.world == 2 and group.leads == is_first()
    assert group.device(None) is None and group.device("cpu") == "cpu"
    assert group.first(lambda: f"made by {group.rank}") == "made by 0"
    assert group.one_then_all(lambda: group.rank) == group.rank
    shares = group.gather(group.share([0, 1, 2, 3, 4]))
    assert shares == ([[0, 2, 4], [1, 3]] if group.leads else [])
    sys.stdout.write(f"rank {group.rank} agrees\\n")
    sys.stdout.flush()

    def fail():
        raise InputError("something", "nothing", "anything")

    try:
        group.first(fail)
    except InputError:
        sys.stdout.write("the first one says why\\n")
    except SystemExit as error:
        sys.stdout.write(f"the other one leaves with {error.code}\\n")
"""


@pytest.mark.processes
def test_two_processes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = torchrun(script=tmp_path / "script.py")
    assert done.returncode == 0, done.stderr
    told = sorted(done.stdout.splitlines())
    assert told == ["rank 0 agrees", "rank 1 agrees", "the first one says why", "the other one leaves with 2"]


def test_one_process_does_everything(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with processes() as group:
        assert group == Group() and is_first() and group.leads
        assert group.first(lambda: 3) == 3 and group.one_then_all(lambda: 4) == 4 and group.gather("x") == ["x"]
        assert group.share([1, 2, 3]) == [1, 2, 3] and group.device(None) is None


def test_shares_cover_everything_once():
    items = list(range(11))
    shares = [Group(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Group(4, 5).share([1, 2]) == []


def test_a_group_that_nobody_describes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="torchrun --nproc-per-node"), processes():
        pass
