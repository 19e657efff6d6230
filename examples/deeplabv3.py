"""DeepLabV3 of torchvision, refined.

    pip install torchvision
    python examples/deeplabv3.py photo.jpg -o mask.png --weights DEFAULT

DEFAULT stands for torchvision's weights for the 21 PASCAL VOC classes. Without --weights the network's are random.
"""

import argparse

import torch
from PIL import Image, ImageOps
from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights, deeplabv3_mobilenet_v3_large

from ddps import DDPSRefiner

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("-o", "--output", default="mask.png")
parser.add_argument("--weights", help="a name of torchvision's, such as DEFAULT")
args = parser.parse_args()

image = ImageOps.exif_transpose(Image.open(args.image)).convert("RGB")
preprocess = DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT.transforms()
model = deeplabv3_mobilenet_v3_large(weights=args.weights, weights_backbone=None).eval()
with torch.no_grad():
    outputs = model(preprocess(image)[None])
better = DDPSRefiner.from_pretrained().refine(image, outputs)
print(f"{args.output}: {100 * better.changed.float().mean():.1f} % of the pixels changed")
better.save(args.output, overwrite=True)
