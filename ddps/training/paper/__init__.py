"""Training of the paper's denoiser on a frozen segmentor's features: recipes, and `train_recipe`, which follows one."""

from .config import PaperRun, Recipe
from .recipes import load_recipe, recipe_names
from .segmentor import FrozenSegmentor, Seen, SegFormer, read_segmentor
from .train import train_recipe

__all__ = [
    "FrozenSegmentor",
    "PaperRun",
    "Recipe",
    "Seen",
    "SegFormer",
    "load_recipe",
    "read_segmentor",
    "recipe_names",
    "train_recipe",
]
