"""A U-Net of segmentation_models_pytorch, refined; one class is a sigmoid foreground.

    pip install segmentation-models-pytorch
    python examples/smp_unet.py photo.jpg -o mask.png --weights ORG/NAME

Without --weights it is a small U-Net with random weights for --classes classes.
"""

import argparse

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ddps import DDPSRefiner

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("-o", "--output", default="mask.png")
parser.add_argument("--weights", help="folder or Hub id that smp.from_pretrained takes")
parser.add_argument("--classes", type=int, default=1)
args = parser.parse_args()

image = ImageOps.exif_transpose(Image.open(args.image)).convert("RGB")
random_net = {"encoder_name": "mobilenet_v2", "encoder_weights": None, "classes": args.classes}
model = (smp.from_pretrained(args.weights) if args.weights else smp.Unet(**random_net)).eval()
# of the ImageNet encoders; sides have to be multiples of 32
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
pixels = ((torch.from_numpy(np.array(image)) / 255 - mean) / std).permute(2, 0, 1)[None]
height, width = pixels.shape[-2:]
with torch.no_grad():
    outputs = model(F.pad(pixels, (0, -width % 32, 0, -height % 32)))[0, :, :height, :width]
better = DDPSRefiner.from_pretrained().refine(image, outputs, kind="logits")
print(f"{args.output}: {100 * better.changed.float().mean():.1f} % of the pixels changed")
better.save(args.output, overwrite=True)
