"""Any model of mmsegmentation 1.x, refined: its config and checkpoint in, a mask out.

    python examples/mmseg_model.py photo.jpg -o mask.png --config segformer_b0.py --weights segformer_b0.pth

It needs mmsegmentation 1.2.2, mmengine 0.10 and mmcv 2.0 or 2.1. Without --config it is a tiny SegFormer with random
weights.
"""

import argparse

import cv2
from mmengine import Config
from mmseg.apis import inference_model, init_model

from ddps import DDPSRefiner

NORM = {"type": "BN"}
BACKBONE = {"type": "MixVisionTransformer", "embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
HEAD = {"type": "SegformerHead", "in_channels": [8, 8, 16, 16], "in_index": [0, 1, 2, 3], "channels": 16}
ADE20K = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
STEPS = ({"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (128, 128), "keep_ratio": True})
TINY = {
    "model": {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            **ADE20K,
            "size_divisor": 32,
            "test_cfg": {"size_divisor": 32},
        },
        "backbone": BACKBONE,
        "decode_head": {**HEAD, "num_classes": 5, "norm_cfg": NORM, "align_corners": False},
        "test_cfg": {"mode": "whole"},
    },
    "test_dataloader": {"dataset": {"pipeline": [*STEPS, {"type": "PackSegInputs"}]}},
    "test_pipeline": [*STEPS, {"type": "PackSegInputs"}],
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("-o", "--output", default="mask.png")
parser.add_argument("--config", help="of mmsegmentation")
parser.add_argument("--weights", help="the checkpoint")
args = parser.parse_args()

model = init_model(args.config or Config(TINY), args.weights, device="cpu")
bgr = cv2.imread(args.image)  # mmseg reads arrays as BGR, ddps as RGB
sample = inference_model(model, bgr)
better = DDPSRefiner.from_pretrained().refine(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), sample)
print(f"{args.output}: {100 * better.changed.float().mean():.1f} % of the pixels changed")
better.save(args.output, overwrite=True)
