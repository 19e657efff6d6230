"""Schedules: the golden tables, the order of the steps, and what is refused."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ddps.diffusion.schedules import make_schedule, network_steps, noise_index
from ddps.errors import InputError

KINDS = ("linear", "cosine")


def test_golden_tables(shared):
    golden = load_file(shared / "golden" / "schedules.safetensors")
    names = sorted({key.rpartition(".")[0] for key in golden})
    assert names
    for name in names:
        kind, steps, classes = name.split(".")
        schedule = make_schedule({"linear": "linear", "cos": "cosine"}[kind], int(steps[1:]))
        num_classes = int(classes[1:])
        ours = {
            "at": schedule.alpha,
            "att": schedule.alpha_bar,
            "bt": schedule.beta(num_classes),
            "btt": schedule.beta_bar(num_classes),
        }
        for table, values in ours.items():
            wanted = golden[f"{name}.{table}"]
            assert values.dtype == torch.float64
            # The golden tables were computed in float32, where 1 - 0.99999 keeps three digits.
            assert values.shape == wanted.shape
            assert (values - wanted).abs().max() < (1e-5 if table == "at" else 1e-6), f"{name}.{table}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [2, 3, 20, 100, 4096])
def test_keep_rates_fall_to_noise_and_end_with_no_noise(kind, num_steps):
    schedule = make_schedule(kind, num_steps)
    assert schedule.num_steps == num_steps
    assert schedule.alpha_bar.shape == (num_steps + 1,)
    assert schedule.alpha_bar[0] == pytest.approx(0.99999)
    assert schedule.alpha_bar[-1] == schedule.alpha_bar[num_steps] == 1
    assert (schedule.alpha_bar[:-1].diff() < 0).all()
    assert ((schedule.alpha > 0) & (schedule.alpha < 1)).all()
    torch.testing.assert_close(schedule.alpha.cumprod(0), schedule.alpha_bar[:-1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_strided_rates_are_products_of_single_steps(kind):
    schedule = make_schedule(kind, 20)
    for n in range(20):
        for s in range(-1, n):
            assert schedule.alpha_between(n, s) == pytest.approx(float(schedule.alpha[s + 1 : n + 1].prod()), rel=1e-9)


@pytest.mark.parametrize(("n", "s"), [(3, 3), (2, 5), (20, 1), (0, -2)])
def test_rates_between_refuse_a_wrong_order(n, s):
    with pytest.raises(InputError, match="noise indices"):
        make_schedule("linear", 20).alpha_between(n, s)


def test_unknown_kind_and_too_few_steps_are_refused():
    with pytest.raises(InputError, match="'linear' or 'cosine'"):
        make_schedule("quadratic", 20)
    for kind in KINDS:
        with pytest.raises(InputError, match="at least 2"):
            make_schedule(kind, 1)


@given(st.integers(2, 300).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total))))
def test_network_steps_are_as_many_as_asked_and_end_at_the_cleanest(case):
    total, steps = case
    times = network_steps(total, steps)
    assert len(times) == steps
    assert times[0] == 0
    assert all(a < b for a, b in pairwise(times))
    if steps > 1:
        assert times[-1] == total - 1
        assert {b - a for a, b in pairwise(times[:-1])} <= {total // steps}


def test_network_steps_examples():
    assert network_steps(20, 1) == [0]
    assert network_steps(20, 3) == [0, 6, 19]
    assert network_steps(20, 20) == list(range(20))
    for steps in (0, -1, 21):
        with pytest.raises(InputError, match="steps from 1 to 20"):
            network_steps(20, steps)


def test_network_time_runs_backwards():
    assert [noise_index(20, i) for i in (0, 1, 19)] == [19, 18, 0]
