import pytest
import torch
from safetensors.torch import save
from torch import nn

from ddps.errors import InputError
from ddps.training.checkpoint import load_state, save_state

FACTS = {"step": 7, "best": float("-inf"), "loss": 0.25}


def make(seed: int, width: int = 4, passes: int = 0) -> tuple[nn.Module, dict, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)).to(memory_format=torch.channels_last)
    average = {k: torch.rand_like(v) if v.is_floating_point() else v.clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01 * (seed + 1))
    for _ in range(passes):
        advance(network, optimizer)
    return network, average, optimizer


def advance(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    network(torch.arange(75.0).reshape(1, 3, 5, 5).cos()).square().sum().backward()
    optimizer.step()


def assert_same_state(a: dict, b: dict) -> None:
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_everything_comes_back_bit_for_bit(tmp_path):
    network, average, optimizer = make(0, passes=3)
    save_state(tmp_path / "state", network, average, optimizer, FACTS)
    other, other_average, other_optimizer = make(1)
    assert load_state(tmp_path / "state", other, other_average, other_optimizer) == FACTS
    assert_same_state(other.state_dict(), network.state_dict())
    assert_same_state(other_average, average)
    for group in other_optimizer.param_groups:
        group["lr"] = 0.01
    for _ in range(2):
        advance(network, optimizer)
        advance(other, other_optimizer)
    assert_same_state(other.state_dict(), network.state_dict())


def test_before_the_first_step(tmp_path):
    network, average, optimizer = make(0)
    save_state(tmp_path / "state", network, average, optimizer, FACTS)
    assert load_state(tmp_path / "state", *make(1)) == FACTS


def test_saving_replaces_the_old_state_whole(tmp_path, monkeypatch):
    network, average, optimizer = make(0)
    save_state(tmp_path / "state", network, average, optimizer, FACTS)
    save_state(tmp_path / "state", network, average, optimizer, {**FACTS, "step": 8})
    assert load_state(tmp_path / "state", *make(1))["step"] == 8
    before = (tmp_path / "state").read_bytes()

    calls = []

    def fail_halfway(tensors: dict) -> bytes:
        calls.append(tensors)
        if len(calls) > 3:
            raise MemoryError
        return save(tensors)

    monkeypatch.setattr("ddps.tensor_file.save", fail_halfway)
    with pytest.raises(MemoryError):
        save_state(tmp_path / "state", network, average, optimizer, FACTS)
    assert (tmp_path / "state").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_another_networks_state(tmp_path):
    save_state(tmp_path / "state", *make(0, passes=1), FACTS)
    with pytest.raises(InputError, match="checkpoint of this run"):
        load_state(tmp_path / "state", *make(0, width=8))


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: b"", lambda data: b"\x80\x04K\x01."])
def test_a_damaged_file(tmp_path, damage):
    save_state(tmp_path / "state", *make(0, passes=1), FACTS)
    (tmp_path / "state").write_bytes(damage((tmp_path / "state").read_bytes()))
    with pytest.raises(InputError, match="checkpoint of this run") as caught:
        load_state(tmp_path / "state", *make(1))
    assert "\n" not in str(caught.value)
