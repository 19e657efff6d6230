"""How a pixel's class turns to noise, and the exact way back: uniform and absorbing kernels.

Each pixel is corrupted independently, so everything here is per pixel: sampling costs O(1) and the posterior O(K);
the K x K transition matrices are never built. Distributions are (B, K, H, W) with the states along the channels.

Source: D3PM, arXiv 2107.03006, equations 1-3 and appendix A; DDPS, arXiv 2306.01721, section 3.
"""

from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from ..errors import InputError
from .draws import Generators, draw_classes, draw_uniform
from .schedules import Schedule


class Kernel(Protocol):
    """What a sampler needs of a kernel. A mask is (B, H, W) int64 and holds states; a prediction holds classes."""

    def prior(self, shape: tuple[int, int, int], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        """A mask of pure noise, (B, H, W) int64."""
        ...

    def sample(self, x0: Tensor, alpha_bar: float | Tensor, generators: Generators) -> Tensor:
        """A draw of q(x_n | x_0), (B, H, W) int64."""
        ...

    def posterior(self, x_n: Tensor, x0: Tensor, n: int, s: int, schedule: Schedule) -> Tensor:
        """Σ_i p(x_0 = i) q(x_s | x_n, x_0 = i), (B, states, H, W)."""
        ...


class UniformKernel:
    """q(x_n = j | x_0 = i) = ᾱ_n·[i = j] + (1 - ᾱ_n) / K: keep the class, or draw any class anew.

    Args:
        num_classes: K, or one K per image, (B,) int64: image b then uses the classes 0 to K_b - 1, and the channels
            from K_b on are padding that never gets any probability.

    Raises:
        InputError: a K below 1.
    """

    def __init__(self, num_classes: int | Tensor):
        # As host integers, once: no draw has to wait for the accelerator to tell them.
        self.counts = [num_classes] if isinstance(num_classes, int) else [int(k) for k in num_classes.tolist()]
        self.per_image = not isinstance(num_classes, int)
        if min(self.counts, default=0) < 1:
            raise InputError("at least 1 class", str(self.counts)[:60], "the number of classes of the masks")

    def prior(self, shape: tuple[int, int, int], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        """A mask of pure noise: every class of an image equally likely.

        Args:
            shape: (B, H, W).
            generators: one per image, or None for torch's global generator.
            device: where the mask goes.

        Returns:
            (B, H, W) int64.
        """
        return draw_classes(self._counts_of(shape[0]), shape, generators, device)

    def sample(self, x0: Tensor, alpha_bar: float | Tensor, generators: Generators) -> Tensor:
        """Draws x_n from q(x_n | x_0): one uniform number and one class per pixel.

        Args:
            x0: (B, H, W) int64 classes.
            alpha_bar: ᾱ_n in [0, 1], for all images or (B,) per image.
            generators: one per image, or None for torch's global generator.

        Returns:
            (B, H, W) int64 on x0's device.
        """
        batch, height, width = x0.shape
        keep = draw_uniform((batch, height, width), generators, x0.device) < _rate(alpha_bar, x0)
        return torch.where(keep, x0, self.prior((batch, height, width), generators, x0.device))

    def marginal(self, x0: Tensor, alpha_bar: float | Tensor) -> Tensor:
        """q(x_n | x_0): a row of the transition matrix per pixel, averaged over x_0 where that is a distribution.

        Args:
            x0: (B, H, W) int64 classes, or (B, K, H, W) a distribution over them.
            alpha_bar: ᾱ_n in [0, 1], for all images or (B,) per image. With α_{n|s} it takes x_s to x_n.

        Returns:
            (B, K, H, W) probabilities, float32 or wider.
        """
        probs = self._distribution(x0)
        keep, noise = _rate(alpha_bar, probs), self._noise(probs)
        return keep * probs + (1 - keep) * noise * probs.sum(1, keepdim=True)

    def posterior(self, x_n: Tensor, x0: Tensor, n: int, s: int, schedule: Schedule) -> Tensor:
        """Σ_i p(x_0 = i) q(x_s | x_n, x_0 = i), exact for any s < n.

        With j = x_n the denominator q(x_n = j | x_0 = i) takes two values only, one for i = j and one for every other
        i. So with w_i = p(x_0 = i) / q(x_n = j | x_0 = i) the average at x_s = k is
        q(x_n = j | x_s = k) · (ᾱ_s·w_k + (1 - ᾱ_s)/K · Σ_i w_i).

        Args:
            x_n: (B, H, W) int64, the mask at noise index n.
            x0: (B, H, W) int64 classes, or (B, K, H, W) the predicted distribution p(x_0).
            n: noise index of x_n, 0 to T-1.
            s: noise index of the answer, -1 (no noise, which gives p(x_0) itself) to n-1.
            schedule: the noise schedule.

        Returns:
            (B, K, H, W) probabilities, float32 or wider.

        Raises:
            InputError: n and s are out of range, or p(x_0) has too few channels.
        """
        step = schedule.alpha_between(n, s)
        keep_n, keep_s = float(schedule.alpha_bar[n]), float(schedule.alpha_bar[s])
        probs = self._distribution(x0)
        noise = self._noise(probs)
        same = _one_hot(x_n, probs.shape[1])
        # The largest entry is 1/K_b also on padding, where the denominator must not be 0.
        other = (1 - keep_n) * noise.amax(1, keepdim=True)
        weights = probs / torch.where(same, keep_n + other, other)
        likelihood = step * same.to(probs.dtype) + (1 - step) * noise
        return likelihood * (keep_s * weights + (1 - keep_s) * noise * weights.sum(1, keepdim=True))

    def _counts_of(self, batch: int) -> list[int]:
        if not self.per_image:
            return self.counts * batch
        if len(self.counts) != batch:
            raise InputError(f"num_classes for each of {batch} images", f"{len(self.counts)} values", "one per image")
        return self.counts

    def _distribution(self, x0: Tensor) -> Tensor:
        most = max(self.counts)
        if x0.ndim == 4 and x0.shape[1] < most:
            raise InputError(f"p(x_0) over at least {most} classes", f"{x0.shape[1]} channels", "one channel per class")
        return _distribution(x0, most)

    def _noise(self, probs: Tensor) -> Tensor:
        """(B or 1, K, 1, 1): 1/K_b on an image's own classes, 0 on its padding."""
        counts = self._counts_of(len(probs)) if self.per_image else self.counts
        table = [[1 / k] * k + [0.0] * (probs.shape[1] - k) for k in counts]
        rows = torch.tensor(table, dtype=probs.dtype, device="cpu")
        return rearrange(rows, "b k -> b k 1 1").to(probs.device, non_blocking=probs.is_cuda)


class AbsorbingKernel:
    """Keep the class with probability ᾱ_n, else fall into the extra state K, "masked", and stay there.

    Args:
        num_classes: K.

    Raises:
        InputError: K below 1.
    """

    def __init__(self, num_classes: int):
        if num_classes < 1:
            raise InputError("at least 1 class", str(num_classes), "the number of classes of the masks")
        self.num_classes = num_classes

    def prior(self, shape: tuple[int, int, int], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        """A mask of pure noise: every pixel in state K. `generators` has nothing to decide here.

        Returns:
            (B, H, W) int64.
        """
        return torch.full(shape, self.num_classes, device=device)

    def sample(self, x0: Tensor, alpha_bar: float | Tensor, generators: Generators) -> Tensor:
        """Draws x_n from q(x_n | x_0) with one uniform number per pixel.

        Args:
            x0: (B, H, W) int64 classes.
            alpha_bar: ᾱ_n in [0, 1], for all images or (B,) per image.
            generators: one per image, or None for torch's global generator.

        Returns:
            (B, H, W) int64 states 0 to K on x0's device.
        """
        batch, height, width = x0.shape
        keep = draw_uniform((batch, height, width), generators, x0.device) < _rate(alpha_bar, x0)
        return torch.where(keep, x0, self.num_classes)

    def marginal(self, x0: Tensor, alpha_bar: float | Tensor) -> Tensor:
        """q(x_n | x_0): a row of the transition matrix per pixel, averaged over x_0 where that is a distribution.

        Args:
            x0: (B, H, W) int64 states 0 to K, or (B, K, H, W) or (B, K+1, H, W) a distribution over them.
            alpha_bar: ᾱ_n in [0, 1], for all images or (B,) per image. With α_{n|s} it takes x_s to x_n.

        Returns:
            (B, K+1, H, W) probabilities, float32 or wider; the last channel is the masked state.
        """
        classes = _distribution(x0, self.num_classes + 1)
        masked = classes[:, self.num_classes :].sum(1, keepdim=True)
        classes = classes[:, : self.num_classes]
        keep = _rate(alpha_bar, classes)
        return torch.cat([keep * classes, masked + (1 - keep) * classes.sum(1, keepdim=True)], 1)

    def posterior(self, x_n: Tensor, x0: Tensor, n: int, s: int, schedule: Schedule) -> Tensor:
        """Σ_i p(x_0 = i) q(x_s | x_n, x_0 = i), exact for any s < n.

        A masked pixel stays masked with probability (1 - ᾱ_s)/(1 - ᾱ_n), whatever x_0 is, and else becomes class k with
        probability p(x_0 = k). A pixel that shows a class at n showed it at s too, whatever the network believes.

        Args:
            x_n: (B, H, W) int64 states 0 to K, the mask at noise index n.
            x0: (B, H, W) int64 classes, or (B, K, H, W) the predicted distribution p(x_0).
            n: noise index of x_n, 0 to T-1.
            s: noise index of the answer, -1 (no noise) to n-1.
            schedule: the noise schedule.

        Returns:
            (B, K+1, H, W) probabilities, float32 or wider; the last channel is the masked state.

        Raises:
            InputError: n and s are out of range, or p(x_0) has not K channels.
        """
        schedule.check_order(n, s)
        keep_n, keep_s = float(schedule.alpha_bar[n]), float(schedule.alpha_bar[s])
        if x0.ndim == 4 and x0.shape[1] != self.num_classes:
            raise InputError(f"p(x_0) over {self.num_classes} classes", f"{x0.shape[1]} channels", "one per class")
        probs = _distribution(x0, self.num_classes)
        stay = (1 - keep_s) / (1 - keep_n)
        unmasked = torch.cat([(1 - stay) * probs, torch.full_like(probs[:, :1], stay)], 1)
        state = _one_hot(x_n, self.num_classes + 1)
        return torch.where(state[:, -1:], unmasked, state.to(probs.dtype))


def _one_hot(mask: Tensor, states: int) -> Tensor:
    """(B, K, H, W) bool, an eighth of the memory of `F.one_hot` or less, and no wait for the largest index."""
    return mask[:, None] == rearrange(torch.arange(states, device=mask.device), "k -> 1 k 1 1")


def _distribution(x: Tensor, states: int) -> Tensor:
    if x.ndim == 3:
        return _one_hot(x, states).float()
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rate(alpha_bar: float | Tensor, like: Tensor) -> float | Tensor:
    """ᾱ as it broadcasts against a (B, H, W) mask or a (B, K, H, W) distribution, in the dtype of the arithmetic."""
    if not isinstance(alpha_bar, Tensor):
        return alpha_bar
    dtype = like.dtype if like.is_floating_point() else torch.float32
    shape = (-1,) + (1,) * (like.ndim - 1) if alpha_bar.ndim else ()
    return alpha_bar.to(dtype).to(like.device, non_blocking=like.is_cuda).reshape(shape)
