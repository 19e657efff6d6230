"""A refiner as the evaluation protocol asks models: a full model, or a plug-in one with the prediction it refines."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .outputs import Refinement
from .predictions import Prediction
from .protocol import Passes, Segmentor, as_logits
from .refiner import DDPSRefiner
from .settings import Preset

Call: TypeAlias = Callable[[Tensor, Prediction | None], list[Refinement]]
"""`call(image (3, h, w), prediction)` gives one answer for each of `Passes.recorded`."""


def caller(
    refiner: DDPSRefiner,
    passes: Passes,
    *,
    preset: Preset = "default",
    sampler: str | None = None,
    seed: int = 0,
    num_samples: int = 1,
    guidance_scale: float = 0.0,
    early_exit: float = 0.0,
    tile: int | None = None,
) -> Call:
    """One chain of a refiner, with the answers after the recorded passes.

    They are in the network's own label space: averages are taken over all of its classes, void among them where it has
    one, as in the released models' evaluation. `void_first.labels_to_users` brings them to the users' space.

    Args:
        refiner: the model.
        passes: which passes of the chain are recorded.
        preset, sampler, seed, num_samples, guidance_scale, tile: as for `DDPSRefiner.refine`.
    """
    before = passes.recorded[:-1]

    def call(image: Tensor, prediction: Prediction | None) -> list[Refinement]:
        answer = refiner.refine(
            image,
            None if prediction is None else prediction.native,
            kind="auto" if prediction is None else prediction.kind,
            preset=preset,
            steps=passes.steps,
            sampler=sampler,
            seed=seed,
            num_samples=num_samples,
            guidance_scale=guidance_scale,
            early_exit=early_exit,
            tile=tile,
            ignore_index=255 if prediction is None else prediction.ignore_index,
            num_classes=None if prediction is None else prediction.num_classes,
            raw_labels=True,
            after=before,
        )
        assert isinstance(answer, Refinement)  # one image, one answer
        return [*(answer.after[number] for number in before), answer]

    return call


def as_segmentor(call: Call) -> Segmentor:
    """A refiner's call for `protocol.infer`."""

    def segmentor(image: Tensor, prediction: Prediction | None) -> Sequence[Tensor]:
        return [as_logits(torch.as_tensor(answer.probs)) for answer in call(image, prediction)]

    return segmentor
