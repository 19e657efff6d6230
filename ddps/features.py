"""The paper's own models: one image's feature maps in, a mask out."""

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .canvas import mix_probs
from .config import DDPSConfig
from .diffusion import samplers
from .diffusion.schedules import Schedule
from .errors import InputError
from .models.paper import FeaturesDenoiser
from .outputs import Refinement
from .predictions import Prediction
from .settings import Settings
from .slots import slot_kernel
from .visualize import default_palette


def refine_features(
    network: FeaturesDenoiser,
    config: DDPSConfig,
    schedule: Schedule,
    features: Sequence[Tensor],
    size: tuple[int, int],
    known: Prediction | None,
    settings: Settings,
    return_probs: bool,
) -> Refinement:
    """From noise to a mask, conditioned on feature maps (DDPS, arXiv 2306.01721, section 3.4).

    Args:
        network: on its device.
        config: of the network.
        schedule: of the config.
        features: (1, C, h, w) each, at strides 4 to 32.
        size: (H, W) of the image, in pixels.
        known: the segmentor's own prediction, to mix with and to tell what changed; None leaves both out.
        settings: of the call.
        return_probs: whether the answer keeps its probabilities.

    Raises:
        InputError: guidance or several samples, or features that do not fit the network.
    """
    if settings.guidance_scale or settings.num_samples > 1:
        raise InputError("guidance_scale=0 and num_samples=1 for features", "other values", "leaving them out")
    started = time.perf_counter()
    device = next(network.parameters()).device
    condition = network.condition([f.to(device, torch.float32) for f in features])
    classes = int(network.conv_seg_new.out_channels)
    if known is not None and known.num_classes != classes:
        raise InputError(f"a prediction over {classes} classes", str(known.num_classes), "these weights' segmentor")
    kernel = slot_kernel(config.schedule, classes)
    trajectory: list[Tensor] = []

    def callback(step: samplers.Step) -> None:
        if settings.return_trajectory:
            trajectory.append(_resize(step.logits, size)[0].argmax(0).cpu())
        if settings.callback is not None:
            settings.callback(step)

    def denoiser(mask: Tensor, i: int) -> Tensor:
        answer: Tensor = network(mask, i, condition)
        return answer

    generators = [torch.Generator().manual_seed(settings.seed)]
    shape = (1, condition.shape[-2], condition.shape[-1])
    if settings.sampler == "single":
        logits = samplers.single(denoiser, None, kernel, schedule, generators, callback, shape=shape, device=device)
    else:
        sample = samplers.posterior if settings.sampler == "posterior" else samplers.free
        logits = sample(
            denoiser, None, kernel, schedule, settings.steps, generators, callback, shape=shape, device=device
        )
    probs = _resize(logits, size)[0].softmax(0).cpu()
    if known is not None:
        probs = mix_probs(known.probs(), probs, settings.mix)
    labels, top = probs.argmax(0), probs.topk(2, 0).values
    return Refinement(
        labels=labels,
        probs_source=probs if return_probs else None,
        uncertainty=1 - (top[0] - top[1]),
        changed=torch.zeros_like(labels, dtype=torch.bool) if known is None else labels != known.argmax(),
        palette=config.labels.palette or default_palette(classes),
        names=config.labels.names,
        trajectory=trajectory if settings.return_trajectory else None,
        seconds=time.perf_counter() - started,
    )


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
