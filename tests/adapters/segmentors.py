"""Tiny third-party models with random weights, and a stand-in that finds what is bright in a processor's picture."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

STAGES = ["stage1", "stage2", "stage3", "stage4"]
CLASSES = 5
SIDES = {"shortest_edge": 64, "longest_edge": 128}


def tiny_sam(transformers):
    """A SamModel of transformers with random weights."""
    vision = {"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SamConfig(
        vision_config={**vision, "window_size": 4, "global_attn_indexes": [0], "num_pos_feats": 8},
        prompt_encoder_config={"hidden_size": 16, "mask_input_channels": 4},
        mask_decoder_config={**decoder, "iou_head_hidden_dim": 16},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.SamModel(config).eval()


def photo(height: int, width: int, top: float = 0.5, left: float = 0.5) -> tuple[Image.Image, np.ndarray]:
    """A dark picture with a bright corner, lower right from these shares on, and where it is."""
    bright = np.zeros((height, width), dtype=bool)
    bright[round(top * height) :, round(left * width) :] = True
    return Image.fromarray(np.where(bright, 255, 0).astype(np.uint8)).convert("RGB"), bright


def bright_logits(pixel_values: Tensor, stride: int = 4) -> Tensor:
    """(B, h, w), above 0 where a processor's normalised picture is bright."""
    low, high = float(pixel_values.amin()), float(pixel_values.amax())
    share = (pixel_values.mean(1, keepdim=True) - low) / (high - low)
    return 16 * (F.avg_pool2d(share, stride, ceil_mode=True)[:, 0] - 0.5)


def bright_queries(pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """Class queries (B, 3, 3) and mask queries (B, 3, h, w): class 0 is dark, 1 bright, the third query is nothing."""
    found = bright_logits(pixel_values)
    masks = torch.stack([-found, found, torch.full_like(found, 9.0)], 1)
    return (9 * torch.eye(3) - 4.5).expand(len(found), 3, 3), masks


def agreement(logits: Tensor, bright: np.ndarray) -> float:
    """IoU of class 1 with the truth."""
    resized = F.interpolate(logits[None].float(), bright.shape, mode="bilinear")[0].argmax(0).numpy() == 1
    return (resized & bright).sum() / (resized | bright).sum()


def swin(transformers):
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    return transformers.SwinConfig(**sizes, out_features=STAGES)


def segformer(transformers):
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    config = transformers.SegformerConfig(num_labels=CLASSES, **sizes)
    return transformers.SegformerForSemanticSegmentation(config).eval()


def beit(transformers):
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    heads = {"out_indices": [1, 2, 3, 4], "use_auxiliary_head": False, "pool_scales": [1, 2]}
    config = transformers.BeitConfig(image_size=64, patch_size=16, num_labels=CLASSES, **sizes, **heads)
    return transformers.BeitForSemanticSegmentation(config).eval()


def upernet(transformers):
    backbone = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=STAGES)
    heads = {"hidden_size": 8, "use_auxiliary_head": False, "pool_scales": [1, 2]}
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=CLASSES, **heads)
    return transformers.UperNetForSemanticSegmentation(config).eval()


def mask2former(transformers):
    widths = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "dim_feedforward": 32}
    depths = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 10}
    config = transformers.Mask2FormerConfig(backbone_config=swin(transformers), num_labels=CLASSES, **widths, **depths)
    return transformers.Mask2FormerForUniversalSegmentation(config).eval()


def maskformer(transformers):
    depths = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    decoder = transformers.DetrConfig(d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=7, **depths)
    widths = {"fpn_feature_size": 32, "mask_feature_size": 32}
    config = transformers.MaskFormerConfig(
        backbone_config=swin(transformers), decoder_config=decoder, num_labels=CLASSES, **widths
    )
    return transformers.MaskFormerForInstanceSegmentation(config).eval()


def oneformer(transformers):
    widths = {"hidden_dim": 32, "conv_dim": 32, "mask_dim": 32, "dim_feedforward": 32, "encoder_feedforward_dim": 32}
    depths = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 10}
    text = {"is_training": False, "text_encoder_width": 16, "text_encoder_n_ctx": 4, "task_seq_len": 4}
    config = transformers.OneFormerConfig(
        backbone_config=swin(transformers), num_labels=CLASSES, num_classes=CLASSES, **widths, **depths, **text
    )
    return transformers.OneFormerForUniversalSegmentation(config).eval()


def eomt(transformers):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    grid = {"image_size": 64, "patch_size": 16, "num_blocks": 1, "num_upscale_blocks": 2, "num_queries": 7}
    return transformers.EomtForUniversalSegmentation(
        transformers.EomtConfig(num_labels=CLASSES, **sizes, **grid)
    ).eval()
