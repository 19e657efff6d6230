"""Tiny whole models, and checkpoints of them as mmcv writes them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import BackboneConfig, FeaturesNetwork, InferenceConfig, LabelSpace
from ddps.refiner import build_network

BACKBONE = BackboneConfig(
    embed_dims=(8, 16), depths=(1, 2), num_heads=(1, 2), sr_ratios=(2, 1), patch_sizes=(7, 3), strides=(4, 2)
)
NETWORK = FeaturesNetwork(
    in_channels=(8, 16), channels=8, embed_dim=3, dim=16, dim_mults=(1, 1), out_dim=8, num_classes=5
)
TINY_WHOLE = DDPSConfig(name="whole", network=NETWORK, backbone=BACKBONE, inference=InferenceConfig(steps=3))


def whole_refiner(config: DDPSConfig = TINY_WHOLE, seed: int = 2) -> DDPSRefiner:
    """A refiner on the CPU from images to masks, with random weights whose answers differ from place to place."""
    torch.manual_seed(seed)
    network = build_network(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if "conv_seg_new.bias" in name:
                parameter.zero_()
            if "conv_seg_new.weight" in name:
                # No class may win everywhere: what all pixels have in common is taken out.
                parameter.sub_(parameter.mean(0)).mul_(20)
    return DDPSRefiner(config, network, device="cpu")


def with_void(config: DDPSConfig = TINY_WHOLE) -> DDPSConfig:
    """The same network, read as 4 classes after void."""
    return replace(config, labels=LabelSpace(config.network.num_classes - 1, void_first=True))


def checkpoint_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names as the released checkpoints have them."""
    return {name if name.startswith("backbone.") else f"decode_head.{name}": value for name, value in state.items()}


def write_checkpoint(
    path: Path, refiner: DDPSRefiner, *, averages: bool = True, classes: tuple[str, ...] | None = None
) -> Path:
    """A training checkpoint of mmcv: raw weights (here all off by one), their averages, notes with numpy scalars."""
    state = checkpoint_names({name: value.clone() for name, value in refiner.network.state_dict().items()})
    if averages:
        twins = {"ema_" + name.replace(".", "_"): value for name, value in state.items()}
        raw = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
        state = {**raw, **{name: value for name, value in state.items() if "log_" in name}, **twins}
    meta = {"iter": 160000, "epoch": 1, "hook_msgs": {"best_score": np.float64(0.4935), "count": np.int64(3)}}
    if classes is not None:
        meta["CLASSES"] = classes
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, path)
    return path
