from functools import partial
from operator import mul

import torch

from ddps.speed_machine import Spread, count_flops, interleaved, machine, matmul, peak_memory

CPU = torch.device("cpu")


def test_rounds_alternate_and_count():
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(runs, 3, CPU)
    assert "".join(order) == "abccbaabc"
    assert all(len(each) == 3 and min(each) >= 0 for each in seconds.values())


def test_spread():
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)


def test_operations_are_two_per_multiply_add():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    product, flops = matmul(CPU, torch.float32)
    assert count_flops(product) == flops


def test_memory_is_what_the_run_adds():
    # a fresh process has to find what it runs, and pytest's modules are not on its path
    small, large = (peak_memory(partial, (mul, b"x", megabytes * 2**20), CPU) for megabytes in (1, 96))
    assert small is not None and large is not None
    assert small < 48 * 2**20 < 90 * 2**20 < large < 160 * 2**20


def test_the_machine_is_named():
    found = machine(CPU)
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu" and found["processor"]
