"""The folded network against `FeaturesDenoiser.forward`: the same function, for fewer products, of a snapshot."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ddps.config import ScheduleConfig
from ddps.diffusion import AbsorbingKernel, UniformKernel, free, make_schedule
from ddps.errors import InputError
from ddps.models.latest_steps import LatestSteps
from ddps.models.paper import FeaturesDenoiser
from ddps.models.paper_inference import StepNetwork

from .test_paper import features, some_mask, tiny

TIMES = (0, 7, 19)


def trained_looking(schedule: ScheduleConfig | None = None, **changes: object) -> FeaturesDenoiser:
    """A tiny network whose gains, offsets and biases are far from their start, and whose answer varies."""
    network = tiny(schedule, **changes)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 or name.endswith(".g"):
                parameter.add_(0.3 * torch.randn_like(parameter))
        network.conv_seg_new.weight.mul_(4)
    return network


@torch.no_grad()
def naive(network: FeaturesDenoiser, mask: Tensor, i: int, condition: Tensor, g: float = 0.0) -> Tensor:
    return network(mask, i, condition) * (1 + g) - g * network(mask, i, torch.zeros_like(condition))


@torch.no_grad()
def condition_of(network: FeaturesDenoiser, batch: int = 2, height: int = 8, width: int = 12) -> Tensor:
    return network.condition(features(batch, height, width))


def noised(mask: Tensor, kernel: str) -> Tensor:
    """With the absorbing kernel's masked state in some pixels."""
    if kernel == "uniform":
        return mask
    lost = torch.rand(mask.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    return torch.where(lost, 5, mask)


@pytest.mark.parametrize("guidance_scale", [0.0, 1.5])
@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
@pytest.mark.parametrize(("height", "width"), [(13, 22), (16, 12), (9, 31)])
def test_the_answer_is_the_references(height, width, kernel, guidance_scale):
    network = trained_looking(ScheduleConfig(kernel=kernel), dim=32)
    condition, mask = condition_of(network, 2, height, width), noised(some_mask(2, height, width), kernel)
    bound = StepNetwork(network, TIMES).bind(condition, guidance_scale)
    for i in TIMES:
        expected = naive(network, mask, i, condition, guidance_scale)
        torch.testing.assert_close(bound(mask, i), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (8, 12), (5, 4)])
def test_it_is_an_identity(height, width, kernel, batch):
    # Where a group of the coarsest level has one or two values, its normalisation turns float32's rounding into 1e-3.
    network = trained_looking(ScheduleConfig(kernel=kernel)).double()
    condition, mask = condition_of(network, batch, height, width), noised(some_mask(batch, height, width), kernel)
    bound = StepNetwork(network, TIMES).bind(condition, 1.5)
    for i in TIMES:
        torch.testing.assert_close(bound(mask, i), naive(network, mask, i, condition, 1.5), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {"dim_mults": (1,)},
        {"dim_mults": (2, 1, 3)},
        {"num_classes": 40, "dim": 16, "out_dim": 4},  # cheaper with the classifier apart
        {"embed_dim": 1, "channels": 3},
    ],
)
def test_any_sizes(changes):
    network = trained_looking(**changes)
    condition, mask = condition_of(network), some_mask()
    ours = StepNetwork(network, TIMES).bind(condition)(mask, 7)
    torch.testing.assert_close(ours, naive(network, mask, 7, condition), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel", [UniformKernel(5), AbsorbingKernel(5)])
def test_a_chain_of_all_steps_ends_in_the_same_labels(kernel):
    schedule = ScheduleConfig(kernel="absorbing" if isinstance(kernel, AbsorbingKernel) else "uniform")
    network = trained_looking(schedule)
    condition = condition_of(network, 2, 9, 14)
    seen: list[list[Tensor]] = []
    for denoiser in (
        lambda mask, i: naive(network, mask, i, condition),
        StepNetwork(network, range(20)).bind(condition),
    ):
        labels: list[Tensor] = []
        generators = [torch.Generator().manual_seed(b) for b in range(2)]
        times = make_schedule("linear", 20)
        free(
            denoiser,
            None,
            kernel,
            times,
            20,
            generators,
            lambda step, to=labels: to.append(step.logits.argmax(1)),
            shape=(2, 9, 14),
        )
        seen.append(labels)
    assert len(seen[0]) == 20 and len(torch.stack(seen[0]).unique()) > 1
    assert torch.equal(torch.stack(seen[0]), torch.stack(seen[1]))


def test_it_is_a_snapshot_and_leaves_the_network_alone():
    network = trained_looking(dim=32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    condition, mask = condition_of(network), some_mask()
    folded = StepNetwork(network, TIMES)
    expected = folded.bind(condition)(mask, 7)
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in before.items()
    }
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    assert torch.equal(folded.bind(condition)(mask, 7), expected)
    ours = StepNetwork(network, TIMES).bind(condition)(mask, 7)
    torch.testing.assert_close(ours, naive(network, mask, 7, condition), rtol=0, atol=1e-4)
    assert not torch.allclose(ours, expected, atol=1e-2)


def test_dropout_is_off_and_nothing_is_differentiated():
    network = trained_looking(dropout=0.5)
    condition, mask = condition_of(network).requires_grad_(), some_mask()
    expected = naive(network, mask, 7, condition)
    logits = StepNetwork(network.train(), TIMES).bind(condition)(mask, 7)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_bfloat16_is_at_least_as_close_to_float32_as_the_reference():
    network = trained_looking()
    condition, mask = condition_of(network), some_mask()
    exact = naive(network, mask, 7, condition)
    with torch.autocast("cpu", torch.bfloat16):
        reference = network(mask, 7, condition)
        ours = StepNetwork(network, TIMES, torch.bfloat16).bind(condition)(mask, 7)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).abs().mean() < 1.2 * (reference - exact).abs().mean()
    assert torch.equal(StepNetwork(network, TIMES, torch.bfloat16).bind(condition)(mask, 7), ours)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_in_other_precisions(dtype):
    network = trained_looking().to(dtype)
    condition, mask = condition_of(network), some_mask()
    ours = StepNetwork(network, TIMES).bind(condition)(mask, 7)
    exact = network.double()(mask, 7, condition.double())
    assert ours.dtype == dtype
    raised = StepNetwork(network.to(dtype), TIMES, torch.float32).bind(condition)(mask, 7)
    assert raised.dtype == torch.float32 and (raised - ours).abs().max() < 0.3
    tolerance = 1e-9 if dtype == torch.float64 else 0.3
    assert (ours.double() - exact).abs().max() < tolerance


def test_float32_is_not_lowered_by_an_autocast_around_it():
    network = trained_looking()
    condition, mask = condition_of(network), some_mask()
    expected = StepNetwork(network, TIMES).bind(condition)(mask, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(StepNetwork(network, TIMES).bind(condition)(mask, 7), expected)


@torch.no_grad()
def test_a_step_takes_fewer_products():
    network = trained_looking()
    condition, mask = condition_of(network), some_mask()
    bound = StepNetwork(network, TIMES).bind(condition)
    counts = []
    for run in (lambda: network(mask, 7, condition), lambda: bound(mask, 7)):
        with FlopCounterMode(display=False) as counter:
            run()
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0]


def test_nothing_waits_for_the_device():
    # A tensor without values raises where the host asks for one.
    with FakeTensorMode():
        network = trained_looking()
        bound = StepNetwork(network, TIMES).bind(torch.empty(2, 8, 5, 7), 1.5)
        assert bound(torch.zeros(2, 5, 7, dtype=torch.int64), 7).shape == (2, 5, 5, 7)


def test_wrong_masks_and_times_are_refused():
    network = trained_looking()
    bound = StepNetwork(network, TIMES).bind(condition_of(network))
    for mask in (torch.zeros(2, 4, 6, dtype=torch.int64), torch.zeros(2, 8, 12)):
        with pytest.raises(InputError, match="an int64 mask"):
            bound(mask, 0)
    with pytest.raises(InputError, match=r"a network time of \[0, 7, 19\]; got 8"):
        bound(some_mask(), 8)


def test_there_is_nothing_to_train():
    folded = StepNetwork(trained_looking(), TIMES)
    assert isinstance(folded, nn.Module) and not list(folded.parameters()) and not folded.state_dict()


def test_the_latest_steps_are_kept_until_anything_changes():
    network = trained_looking()
    latest = LatestSteps()
    first = latest.of(network, [0, 5])
    assert latest.of(network, [0, 5]) is first
    assert latest.of(network, [0, 6]) is not first
    again = latest.of(network, [0, 5])
    with torch.no_grad():
        network.conv_seg_new.bias.add_(1)
    changed = latest.of(network, [0, 5])
    assert changed is not again
    network.embed.weight.data[0] += 0.5  # unseen by torch's version counters
    written = latest.of(network, [0, 5])
    assert written is not changed
    network.load_state_dict(network.state_dict())
    assert latest.of(network, [0, 5]) is written  # nothing is different
    with torch.inference_mode():
        other = trained_looking()
    assert latest.of(other, [0]) is latest.of(other, [0])


def test_compiled_steps_answer_the_same_with_one_compilation_for_all_times():
    torch._dynamo.reset()
    network = trained_looking()
    times = (0, 6, 13, 19)
    plain, steps = StepNetwork(network, times), StepNetwork(network, times).compile_steps("aot_eager")
    condition = condition_of(network, batch=1)
    one, other = steps.bind(condition, 0.5), plain.bind(condition, 0.5)
    mask, compiled = some_mask(1), []
    for i in times:
        torch.testing.assert_close(one(mask, i), other(mask, i), rtol=0, atol=1e-5)
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert compiled[0] == compiled[-1] > 0
