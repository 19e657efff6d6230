"""Training a refiner: `TrainConfig` says how, `train` does it."""

from .config import TrainConfig
from .loop import train
from .own_classes import own_classes
from .start import model_of

__all__ = ["TrainConfig", "model_of", "own_classes", "train"]
