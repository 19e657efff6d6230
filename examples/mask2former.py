"""Mask2Former, or another segmentor of transformers that answers with queries (MaskFormer, EoMT), on several photos.

    pip install transformers torchvision scipy
    python examples/mask2former.py photos/*.jpg -o masks --weights facebook/mask2former-swin-tiny-ade-semantic

Photos of several sizes are padded to one batch; `to_logits` undoes that with what the processor says about it. Without
--weights it is a tiny Mask2Former with random weights, which needs no network and knows nothing.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageOps
from transformers import (
    AutoImageProcessor,
    AutoModelForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from ddps import DDPSRefiner
from ddps.adapters.transformers import to_logits

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_features=STAGES)
WIDTHS = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "dim_feedforward": 32}
DEPTHS = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 10}
TINY = Mask2FormerConfig(backbone_config=SWIN, num_labels=5, **WIDTHS, **DEPTHS)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("images", nargs="+", type=Path)
parser.add_argument("-o", "--output", type=Path, default=Path("masks"))
parser.add_argument("--weights", help="folder or Hub id of a universal segmentor")
args = parser.parse_args()

images = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in args.images]
if args.weights:
    processor = AutoImageProcessor.from_pretrained(args.weights)
    model = AutoModelForUniversalSegmentation.from_pretrained(args.weights).eval()
else:
    processor = Mask2FormerImageProcessor(size={"shortest_edge": 128, "longest_edge": 256})
    model = Mask2FormerForUniversalSegmentation(TINY).eval()
inputs = processor(images, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
args.output.mkdir(parents=True, exist_ok=True)
answers = DDPSRefiner.from_pretrained().refine(images, to_logits(outputs, inputs, images), kind="logits")
for path, better in zip(args.images, answers, strict=True):
    print(f"{path.name}: {100 * better.changed.float().mean():.1f} % of the pixels changed")
    better.save(args.output / f"{path.stem}.png", overwrite=True)
