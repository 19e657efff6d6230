"""SegFormer, or any other dense segmentor of transformers (BEiT, UperNet, DPT, ...), refined.

    pip install transformers torchvision
    python examples/segformer.py photo.jpg -o mask.png --weights nvidia/segformer-b0-finetuned-ade-512-512

Without --weights it is a tiny SegFormer with random weights, which needs no network and knows nothing.
"""

import argparse

import torch
from PIL import Image, ImageOps
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from ddps import DDPSRefiner

TINY = SegformerConfig(num_labels=5, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("-o", "--output", default="mask.png")
parser.add_argument("--weights", help="folder or Hub id of a semantic segmentor")
args = parser.parse_args()

image = ImageOps.exif_transpose(Image.open(args.image)).convert("RGB")
if args.weights:
    processor = AutoImageProcessor.from_pretrained(args.weights)
    model = AutoModelForSemanticSegmentation.from_pretrained(args.weights).eval()
else:
    processor = SegformerImageProcessor(size={"height": 128, "width": 128})
    model = SegformerForSemanticSegmentation(TINY).eval()
with torch.no_grad():
    outputs = model(**processor(image, return_tensors="pt"))
better = DDPSRefiner.from_pretrained().refine(image, outputs)
print(f"{args.output}: {100 * better.changed.float().mean():.1f} % of the pixels changed")
better.save(args.output, overwrite=True)
