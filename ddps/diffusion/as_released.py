"""For the record: the strict scheme as the paper's released code computes it, which is not Bayes' rule.

Nothing uses this by default. It is here so that the paper's comparison of free re-noising with the strict scheme can be
measured against both: this, and the right one (`ddps.diffusion.posterior`). Written from a description of what the
released code gets wrong, not from the code.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ..errors import InputError
from .draws import Generators, draw_categorical
from .kernels import UniformKernel
from .samplers import Callback, Denoiser, run_pass, start_mask, times_of
from .schedules import Schedule, noise_index


def posterior_as_released(
    denoiser: Denoiser,
    prediction: Tensor | None,
    kernel: UniformKernel,
    schedule: Schedule,
    steps: int | Sequence[int],
    generators: Generators,
    callback: Callback | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    device: torch.device | str = "cpu",
    vector_denominator: bool = True,
    one_level_low: bool = True,
    one_step_rates: bool = True,
) -> Tensor:
    """The strict scheme with the three mistakes of the released code; with all three off it is `posterior`.

    See `weights_as_released` for the formula and the mistakes.

    Args:
        denoiser, prediction, kernel, schedule, steps, generators, callback, shape, device: see `posterior`; the kernel
            is uniform, over one number of classes.
        vector_denominator, one_level_low, one_step_rates: whether each mistake is made.

    Returns:
        (B, K, h, w) logits of the last pass.

    Raises:
        InputError: as `posterior`, and another kernel.
    """
    times = times_of(schedule, steps)
    mask = start_mask(prediction, kernel, schedule, times[0], generators, shape, device)
    logits = run_pass(denoiser, mask, 0, times[0], callback)
    for index, i in enumerate(times[1:], start=1):
        n, s = noise_index(schedule.num_steps, times[index - 1]), noise_index(schedule.num_steps, i)
        probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
        weights = weights_as_released(
            kernel,
            mask,
            probs,
            n,
            s,
            schedule,
            vector_denominator=vector_denominator,
            one_level_low=one_level_low,
            one_step_rates=one_step_rates,
        )
        mask = draw_categorical(weights, generators)
        logits = run_pass(denoiser, mask, index, i, callback)
    return logits


def weights_as_released(
    kernel: UniformKernel,
    x_n: Tensor,
    probs: Tensor,
    n: int,
    s: int,
    schedule: Schedule,
    *,
    vector_denominator: bool = True,
    one_level_low: bool = True,
    one_step_rates: bool = True,
) -> Tensor:
    """What the released code draws x_s from; not normalised.

    The right posterior at x_s = k, with j = x_n, is Σ_i p(x_0 = i) q(x_n = j | x_s = k) q(x_s = k | x_0 = i) / D_i. As
    released,

    1. `vector_denominator`: D is taken at k, q(x_n = k | x_0 = i), one value for every entry of the answer, where it
       has to be taken at the state j that the pixel is in, one number;
    2. `one_level_low`: all rates are looked up one noise index too low, n-1 and s-1 in place of n and s, as if the mask
       held less noise than it does;
    3. `one_step_rates`: q(x_n = j | x_s = k) uses the rate of one step, α_n, also where steps were left out and the
       composed rate ᾱ_n/ᾱ_s belongs.

    Args:
        kernel: over one number of classes.
        x_n: (B, H, W) int64, the mask at noise index n.
        probs: (B, K, H, W) predicted p(x_0).
        n: noise index of x_n, 1 to T-1.
        s: noise index of the answer, 0 to n-1.
        schedule: the noise schedule.
        vector_denominator, one_level_low, one_step_rates: whether each mistake is made; without any, the result is
            `UniformKernel.posterior`.

    Returns:
        (B, K, H, W) non-negative weights, float32 or wider.

    Raises:
        InputError: another kernel, or n and s out of range.
    """
    if not isinstance(kernel, UniformKernel) or kernel.per_image:
        raise InputError("a uniform kernel over one number of classes", type(kernel).__name__, "sampler 'posterior'")
    schedule.check_order(n, s)
    if s < 0:
        raise InputError("a noise index s of at least 0", str(s), "the index of the next network time")
    lag = int(one_level_low)
    keep_n, keep_s = float(schedule.alpha_bar[n - lag]), float(schedule.alpha_bar[s - lag])
    step = float(schedule.alpha[n - lag]) if one_step_rates else keep_n / keep_s
    noise = 1 / probs.shape[1]
    states = rearrange(torch.arange(probs.shape[1], device=x_n.device), "k -> 1 k 1 1")
    same = x_n[:, None] == states
    likelihood = step * same.to(probs.dtype) + (1 - step) * noise
    hit, miss = keep_n + (1 - keep_n) * noise, (1 - keep_n) * noise
    if vector_denominator:
        # entry k: x_0 = k was hit with probability p_k, and missed by every other x_0
        mine, others = (keep_s + (1 - keep_s) * noise) / hit, (1 - keep_s) * noise / miss
        return likelihood * (mine * probs + others * (probs.sum(1, keepdim=True) - probs).clamp(min=0))
    weights = probs / torch.where(same, hit, miss)
    return likelihood * (keep_s * weights + (1 - keep_s) * noise * weights.sum(1, keepdim=True))
