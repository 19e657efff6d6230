"""Masks of any semantic segmentor, made better by a discrete diffusion model of masks (DDPS, arXiv 2306.01721)."""

from .config import DDPSConfig
from .errors import InputError
from .outputs import Refinement
from .refiner import DDPSRefiner

__version__ = "0.1.0"
__all__ = ["DDPSConfig", "DDPSRefiner", "InputError", "Refinement", "__version__"]
