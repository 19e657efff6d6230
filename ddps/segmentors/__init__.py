"""Whole models: a segmentor's encoder with the paper's head, from an image to a mask."""

from .mit import MixVisionTransformer, build_backbone
from .whole import ImageDenoiser

__all__ = ["ImageDenoiser", "MixVisionTransformer", "build_backbone"]
