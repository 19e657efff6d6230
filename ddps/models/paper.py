"""The paper's denoiser: a segmentor's features and the noisy mask in, logits at stride 4 out.

Source: DDPS, arXiv 2306.01721, section 3.2. Parameters and tables carry the released checkpoints' names.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import FeaturesNetwork, ScheduleConfig
from ..diffusion.schedules import make_schedule
from ..errors import InputError
from .fusion import FeatureFusion
from .unet import UNet


class FeaturesDenoiser(FeatureFusion):
    """Fusion, mask embedding, time-conditioned U-Net, classifier.

    It is a fusion, rather than having one, because the checkpoints keep all these names on one level. The schedule's
    tables travel with the weights, as logs in float32, as in the checkpoints; the last entry of `log_cumprod_bt` is
    the log of 0.

    Args:
        network: sizes.
        schedule: noise schedule of the tables; an absorbing kernel adds one row, for its masked state K, to the
            embedding.

    Raises:
        InputError: a U-Net width that is not a multiple of 8.
    """

    log_at: Tensor
    log_bt: Tensor
    log_cumprod_at: Tensor
    log_cumprod_bt: Tensor

    def __init__(self, network: FeaturesNetwork, schedule: ScheduleConfig):
        super().__init__(network.in_channels, network.channels)
        self.network = network
        tables = make_schedule(schedule.kind, schedule.num_steps)
        self.register_buffer("log_at", tables.alpha.log().float())
        self.register_buffer("log_bt", tables.beta(network.num_classes).log().float())
        self.register_buffer("log_cumprod_at", tables.alpha_bar.log().float())
        self.register_buffer("log_cumprod_bt", tables.beta_bar(network.num_classes).log().float())
        states = network.num_classes + (schedule.kernel == "absorbing")
        self.embed = nn.Embedding(states, network.embed_dim)
        self.unet = UNet(network.channels + network.embed_dim, network.dim, network.out_dim, network.dim_mults)
        self.dropout = nn.Dropout2d(network.dropout)
        self.conv_seg_new = nn.Conv2d(network.out_dim, network.num_classes, 1)

    def condition(self, features: Sequence[Tensor]) -> Tensor:
        """Fuses the segmentor's features, once per image.

        Args:
            features: (B, in_channels[j], h_j, w_j) maps, finest (stride 4) first, any floating dtype and any device.

        Returns:
            (B, channels, h_0, w_0) in the network's dtype and on its device.

        Raises:
            InputError: the number of maps, their channels or their batch sizes do not fit.
        """
        wanted = self.network.in_channels
        shapes = [tuple(feature.shape) for feature in features]
        fits = len(shapes) == len(wanted) and all(
            len(shape) == 4 and shape[0] == shapes[0][0] and shape[1] == width and min(shape) > 0
            for shape, width in zip(shapes, wanted, strict=True)
        )
        if not fits:
            raise InputError(
                f"{len(wanted)} feature maps (B, C, h, w) of {', '.join(map(str, wanted))} channels, finest first",
                str(shapes)[:200],
                "the features of the segmentor that this refiner was trained with",
            )
        return self.fuse([feature.to(self.embed.weight) for feature in features])

    def forward(self, mask: Tensor, i: int | Tensor, condition: Tensor) -> Tensor:
        """Logits of p(x_0 | mask) at network time i.

        Args:
            mask: (B, h, w) int64 states: classes 0 to K-1, and K where an absorbing kernel masked the pixel.
            i: network time, 0 (noise) to T-1 (clean), for all images or (B,) int64.
            condition: (B, channels, h, w) from `condition`, every h, w >= 1.

        Returns:
            (B, K, h, w).

        Raises:
            InputError: the mask is not int64 or does not have the condition's size.
        """
        batch, _, height, width = condition.shape
        check_mask(mask, (batch, height, width))
        time = i.to(condition.device) if isinstance(i, Tensor) else torch.full((batch,), i, device=condition.device)
        embedded = rearrange(self.embed(mask.to(condition.device)), "b h w c -> b c h w")
        x = torch.cat([condition, embedded], 1)
        multiple = self.unet.multiple
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        x = self.unet(x, time)[..., :height, :width]
        return self.conv_seg_new(self.dropout(x))


def check_mask(mask: Tensor, shape: tuple[int, int, int]) -> None:
    """Raises InputError unless the mask is int64 and (B, h, w) as the condition's."""
    if mask.shape != shape or mask.dtype != torch.int64:
        raise InputError(
            f"an int64 mask {shape}, the size of the condition",
            f"{mask.dtype} {tuple(mask.shape)}",
            "resizing it to stride 4 (nearest)",
        )
