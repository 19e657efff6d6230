"""How much noise each step holds, and in which order the network's steps run.

Source: DDPS, arXiv 2306.01721, section 3 (linear schedule); D3PM, arXiv 2107.03006, appendix A (discrete diffusion).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError

ALPHA_BAR_FIRST = 0.99999
ALPHA_BAR_LAST = 0.000009


@dataclass(frozen=True, eq=False)
class Schedule:
    """Keep-rates of the forward process, tabulated in float64 on the CPU for n = 0 (clean) to T-1 (noise).

    Args:
        alpha_bar: (T+1,) ᾱ_n, the probability that a pixel still holds its class after n+1 steps. The extra last entry
            is 1, so that index T, and index -1, mean "no noise".
        alpha: (T,) one-step rates α_n = ᾱ_n / ᾱ_{n-1}.
    """

    alpha_bar: Tensor
    alpha: Tensor

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha)

    def alpha_between(self, n: int, s: int) -> float:
        """Keep-rate α_{n|s} = ᾱ_n / ᾱ_s of the composed step from noise index s to n.

        Args:
            n: noise index of the noisier mask, 0 to T-1.
            s: noise index of the cleaner mask, -1 (no noise) to n-1.

        Raises:
            InputError: the indices are out of range or not in this order.
        """
        self.check_order(n, s)
        return float(self.alpha_bar[n] / self.alpha_bar[s])

    def check_order(self, n: int, s: int) -> None:
        """Raises InputError unless -1 <= s < n <= T-1."""
        if not -1 <= s < n < self.num_steps:
            raise InputError(f"noise indices -1 <= s < n <= {self.num_steps - 1}", f"s={s}, n={n}", "a smaller s")

    def beta(self, num_classes: int) -> Tensor:
        """(T,) β_n = (1 - α_n) / K, the one-step probability of each class that noise can draw."""
        return (1 - self.alpha) / num_classes

    def beta_bar(self, num_classes: int) -> Tensor:
        """(T+1,) β̄_n = (1 - ᾱ_n) / K; the last entry, no noise, is 0."""
        return (1 - self.alpha_bar) / num_classes


def linear_schedule(num_steps: int) -> Schedule:
    """ᾱ_n falls on a straight line from 0.99999 at n = 0 to 0.000009 at n = T-1.

    Args:
        num_steps: T, at least 2.

    Raises:
        InputError: fewer than 2 steps.
    """
    n = _indices(num_steps)
    return _from_alpha_bar(ALPHA_BAR_FIRST + (ALPHA_BAR_LAST - ALPHA_BAR_FIRST) * n / (num_steps - 1))


def cosine_schedule(num_steps: int) -> Schedule:
    """ᾱ_n = c_n·(0.99999 - 0.000009) + 0.000009 with c_n = (cos((n+T)·π / 2T) + 1)².

    Args:
        num_steps: T, at least 2.

    Raises:
        InputError: fewer than 2 steps.
    """
    n = _indices(num_steps)
    share = (torch.cos((n + num_steps) * math.pi / (2 * num_steps)) + 1) ** 2
    return _from_alpha_bar(share * (ALPHA_BAR_FIRST - ALPHA_BAR_LAST) + ALPHA_BAR_LAST)


def make_schedule(kind: Literal["linear", "cosine"], num_steps: int) -> Schedule:
    """The schedule that a config names.

    Raises:
        InputError: an unknown kind, or fewer than 2 steps.
    """
    if kind == "linear":
        return linear_schedule(num_steps)
    if kind == "cosine":
        return cosine_schedule(num_steps)
    raise InputError("a schedule 'linear' or 'cosine'", repr(kind)[:60], "one of these")


def network_steps(num_steps: int, steps: int) -> list[int]:
    """The network times i that a chain of `steps` passes visits, noisiest (0) first.

    Every ⌊T/S⌋-th i, the last one replaced by T-1, the cleanest; a single pass is i = 0, as in the paper.

    Args:
        num_steps: T of the schedule.
        steps: S, 1 to T.

    Returns:
        Exactly S strictly increasing times.

    Raises:
        InputError: S is out of range.
    """
    if not 1 <= steps <= num_steps:
        raise InputError(f"steps from 1 to {num_steps}, the steps of the noise schedule", str(steps), "a number within")
    if steps == 1:
        return [0]
    stride = num_steps // steps
    return [*range(0, stride * (steps - 1), stride), num_steps - 1]


def noise_index(num_steps: int, i: int) -> int:
    """Noise index n = T-1-i of the mask that the network sees at its time i: network time runs backwards."""
    return num_steps - 1 - i


def _indices(num_steps: int) -> Tensor:
    if num_steps < 2:
        raise InputError("a schedule of at least 2 steps", str(num_steps), "20, as in the paper")
    # On the CPU whatever the default device is: with "meta", arange would import torch's compiler, which takes seconds.
    return torch.arange(num_steps, dtype=torch.float64, device="cpu")


def _from_alpha_bar(alpha_bar: Tensor) -> Schedule:
    padded = torch.cat([alpha_bar, torch.ones(1, dtype=torch.float64, device="cpu")])
    return Schedule(padded, padded[:-1] / padded.roll(1)[:-1])
