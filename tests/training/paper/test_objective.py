"""What is noised, to which level, and what the answer is held against."""

import pytest
import torch
from torch import Tensor, nn

from ddps.config import LabelSpace, ScheduleConfig
from ddps.training.paper.config import ObjectiveConfig
from ddps.training.paper.data import VOID
from ddps.training.paper.objective import Objective, first_prediction, shrink

K, T, SIDE = 4, 10, 24
LOGITS = torch.tensor([0.0, 1.0, 2.0, 7.0])


class Recorder(nn.Module):
    """Always answers class 3 of the network, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor, bool]] = []
        self.bias = nn.Parameter(torch.zeros(K))

    def forward(self, mask: Tensor, i: Tensor | int, condition: Tensor) -> Tensor:
        self.calls.append((mask, torch.as_tensor(i).expand(len(mask)), condition, self.training))
        logits = LOGITS + self.bias
        return logits[None, :, None, None].expand(len(mask), K, *mask.shape[1:])


def objective(void_first: bool = True, noised: str = "first_prediction", kernel: str = "uniform", dropout: float = 0.0):
    labels = LabelSpace(K - void_first, void_first=void_first)
    return Objective.of(ObjectiveConfig(noised, dropout), labels, ScheduleConfig("linear", T, kernel), K)


def target_of(batch: int = 6) -> Tensor:
    target = torch.zeros(batch, 4 * SIDE, 4 * SIDE, dtype=torch.int64)
    target[:, :, 40:] = 1
    target[:, :8] = VOID
    return target


def asked(which: Objective, single_step: bool = False, predicted: Tensor | None = None, seed: int = 0) -> Recorder:
    network = Recorder().train()
    condition = torch.ones(6, 2, SIDE, SIDE)
    generator = torch.Generator().manual_seed(seed)
    network.loss = which.loss(network, condition, target_of(), predicted, single_step, generator)
    return network


def test_the_single_step_stage_sees_noise_at_the_first_time():
    network = asked(objective(), single_step=True)
    ((mask, times, _, training),) = network.calls
    assert (times == 0).all() and training
    for k in range(K):
        assert float((mask == k).float().mean()) == pytest.approx(1 / K, abs=0.03)


def test_the_first_prediction_is_noised_to_the_level_of_its_time():
    network = asked(objective())
    (noise, first_times, _, training), (mask, times, _, again) = network.calls
    assert (first_times == 0).all() and not training and again
    later = times > 0
    assert len(noise) == int(later.sum()) > 0
    for k in range(K):
        assert float((noise == k).float().mean()) == pytest.approx(1 / K, abs=0.04)
    schedule = objective().schedule
    for one, i in zip(mask[later], times[later], strict=True):
        alpha_bar = float(schedule.alpha_bar[T - 1 - int(i)])
        assert float((one == 3).float().mean()) == pytest.approx(alpha_bar + (1 - alpha_bar) / K, abs=0.08)


def test_the_times_are_uniform():
    counts = sum(
        torch.bincount(asked(objective(noised="ground_truth"), seed=s).calls[-1][1], minlength=T) for s in range(60)
    )
    assert counts.sum() == 360 and counts.min() > 15 and counts.max() < 60


@pytest.mark.parametrize("void_first", [True, False])
def test_the_truth_is_noised_in_the_networks_classes(void_first):
    which = objective(void_first, "ground_truth")
    cleanest = [
        (one, i)
        for seed in range(8)
        for one, i in zip(*asked(which, seed=seed).calls[0][:2], strict=True)
        if i == T - 1
    ]
    assert cleanest
    for mask, _ in cleanest:
        assert (mask[2:, :10] == void_first).float().mean() > 0.99 and (
            mask[2:, 10:] == 1 + void_first
        ).float().mean() > 0.99
        void = mask[:2]
        if void_first:
            assert (void == 0).float().mean() > 0.97
        else:
            assert len(void.unique()) == K


def test_the_segmentors_prediction_is_noised_at_every_time():
    predicted = torch.full((6, SIDE, SIDE), 2)
    network = asked(objective(noised="segmentor"), predicted=predicted)
    ((mask, times, _, _),) = network.calls
    latest = mask[times.argmax()]
    assert (latest == 3).float().mean() > float(objective().schedule.alpha_bar[T - 1 - int(times.max())]) - 0.1


def test_an_absorbing_kernel_masks():
    network = asked(objective(kernel="absorbing"), single_step=True)
    assert (network.calls[0][0] == K).float().mean() > 0.99


def test_the_loss_ignores_void_and_shifts_the_classes():
    share = 40 / (4 * SIDE)  # of class 0; the rest is class 1
    for void_first in (True, False):
        surprise = -LOGITS.log_softmax(0)
        expected = share * surprise[int(void_first)] + (1 - share) * surprise[1 + void_first]
        loss = asked(objective(void_first)).loss.detach()
        assert float(loss) == pytest.approx(float(expected), abs=1e-4)
    network, generator = Recorder(), torch.Generator().manual_seed(0)
    nothing = torch.full((2, 32, 32), VOID)
    loss = objective().loss(network, torch.ones(2, 2, 8, 8), nothing, None, False, generator)
    loss.backward()
    assert loss == 0 and network.bias.grad.abs().sum() == 0


def test_the_condition_is_dropped_for_whole_images():
    network = asked(objective(dropout=0.5))
    condition = network.calls[-1][2]
    shares = condition.flatten(1).mean(1)
    assert set(shares.tolist()) == {0.0, 1.0}
    first = network.calls[0][2].flatten(1).mean(1)
    assert torch.equal(first, shares[network.calls[-1][1] > 0])  # the first prediction sees the same
    assert (asked(objective()).calls[-1][2] == 1).all()


def test_the_first_prediction_has_no_gradient_and_leaves_modes_alone():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1))
    network[1].eval()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, mask, i, condition):
            return self.inner(condition)

    wrapped = Wrapped().train()
    network[1].eval()
    answer = first_prediction(
        wrapped, torch.zeros(1, 4, 4, dtype=torch.int64), torch.rand(1, 1, 4, 4, requires_grad=True)
    )
    assert not answer.requires_grad and network[0].training and not network[1].training and wrapped.training


def test_the_same_generator_gives_the_same_loss():
    losses = [float(asked(objective(), seed=seed).loss.detach()) for seed in (1, 1)]
    masks = [asked(objective(), seed=seed).calls[-1][0] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] and torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_shrunk_to_the_nearest_centre():
    labels = torch.arange(64).view(1, 8, 8)
    assert shrink(labels, (2, 2)).tolist() == [[[18, 22], [50, 54]]]
    assert torch.equal(shrink(labels, (8, 8)), labels)
