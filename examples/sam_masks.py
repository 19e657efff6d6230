"""Masks of Segment Anything, one for each point, refined as a stack: they may overlap and have no classes.

    pip install transformers torchvision
    python examples/sam_masks.py photo.jpg 200,150 320,90 -o masks.npz --weights facebook/sam-vit-base

Points are x,y in pixels. Without --weights it is a tiny SAM with random weights.
"""

import argparse

import torch
from PIL import Image, ImageOps
from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

from ddps import DDPSRefiner
from ddps.stacks import refine_masks

VISION = {"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}
TINY = SamConfig(
    vision_config={**VISION, "window_size": 4, "global_attn_indexes": [0], "num_pos_feats": 8},
    prompt_encoder_config={"hidden_size": 16, "mask_input_channels": 4},
    mask_decoder_config=DECODER,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("points", nargs="+", type=lambda text: [float(number) for number in text.split(",")])
parser.add_argument("-o", "--output", default="masks.npz")
parser.add_argument("--weights", help="folder or Hub id of a SAM")
args = parser.parse_args()

image = ImageOps.exif_transpose(Image.open(args.image)).convert("RGB")
processor = SamProcessor.from_pretrained(args.weights) if args.weights else SamProcessor(SamImageProcessor())
model = (SamModel.from_pretrained(args.weights) if args.weights else SamModel(TINY)).eval()
inputs = processor(image, input_points=[[[point] for point in args.points]], return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
better = refine_masks(DDPSRefiner.from_pretrained(), image, outputs)
print(f"{args.output}: {len(better)} masks, IoU with what SAM said {[round(1 - float(c), 3) for c in better.change]}")
better.save(args.output, overwrite=True)
