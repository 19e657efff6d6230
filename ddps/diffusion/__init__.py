"""The maths of discrete diffusion on masks: schedules, kernels, samplers. No networks, no files."""

from .as_released import posterior_as_released
from .kernels import AbsorbingKernel, Kernel, UniformKernel
from .samplers import Denoiser, Step, free, posterior, single
from .schedules import Schedule, cosine_schedule, linear_schedule, make_schedule, network_steps, noise_index

__all__ = [
    "AbsorbingKernel",
    "Denoiser",
    "Kernel",
    "Schedule",
    "Step",
    "UniformKernel",
    "cosine_schedule",
    "free",
    "linear_schedule",
    "make_schedule",
    "network_steps",
    "noise_index",
    "posterior",
    "posterior_as_released",
    "single",
]
