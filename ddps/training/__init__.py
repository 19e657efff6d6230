"""Training a refiner: `TrainConfig` says how, `train` does it."""

from .config import TrainConfig
from .loop import train

__all__ = ["TrainConfig", "train"]
