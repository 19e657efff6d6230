import pytest
import torch

from ddps import DDPSRefiner
from ddps.devices import find_device, has_native_bfloat16
from ddps.errors import InputError


def test_the_default_device_is_one_that_works():
    assert torch.ones(2, device=find_device(None)).sum() == 2
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["no-such-device", "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(name):
    with pytest.raises(InputError, match=name):
        find_device(name)


def test_bfloat16_is_chosen_where_it_is_native_and_only_there(monkeypatch, tiny_model_dir):
    assert not has_native_bfloat16(torch.device("meta"))
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native, raising=False)
        assert DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu").dtype == dtype
    assert DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu", dtype=torch.float32).dtype == torch.float32
