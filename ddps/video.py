"""Video: what the frames before said is a prior for a frame, where the picture has not changed."""

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .adapters import adapt
from .config import FeaturesNetwork
from .defaults import plain_defaults
from .errors import InputError
from .inputs import ImageLike, load_image
from .motion import Motion, find_motion, unchanged
from .out_of_memory import memory_for
from .outputs import Array, Refinement, convert_container
from .predictions import AnyKind, Prediction, PredictionLike, load_prediction
from .refiner import DDPSRefiner
from .settings import Preset

WEIGHT, HOLD = 0.7, 0.5
CUT = 0.5
LEAST = 1e-5
MOST_TRUST = 5.0
"""How far a class's remembered log-probability may lie below the likeliest one's, so that few frames overrule it."""


class VideoRefiner:
    """Refines the frames of a video one after another; called as the refiner that it wraps.

    A pixel's memory is a mean over the frames so far, which forgets: m_t = (1 - w) l_t + w m_{t-1}, with l_t the
    segmentor's log-probabilities, and w = `weight` where the picture has not changed, 0 where it has. The network
    refines softmax(m_t) instead of the segmentor's own answer; with the same seed for every frame, noise does not
    flicker. Its answers' log-probabilities are averaged in the same way, with `hold` in place of `weight`.

    Neither mean takes in what it has led to, so no answer can hold itself up: what the segmentor says steadily in an
    unchanged picture gets through in a few frames. After a cut, with most of the picture changed, memory starts anew.

    Args:
        refiner: of predictions; models that need a segmentor's features, or nothing but the image, have no place for a
            prior.
        weight, hold: shares of the past in what goes in and in what comes out, from 0 to 0.95; with 0 and 0 every frame
            is refined by itself.
        align: whether one motion of the whole picture, as of a panning camera, is found and undone first.
        cut: share of the picture, from 0 to 1, that has to change for memory to start anew.

    Attributes:
        carried: share of the last frame, from 0 to 1, for which memory counted; 0 for a first frame and after a cut.

    Raises:
        InputError: a number out of its range, or a model that does not refine predictions.
    """

    def __init__(
        self,
        refiner: DDPSRefiner,
        *,
        weight: float = WEIGHT,
        hold: float = HOLD,
        align: bool = True,
        cut: float = CUT,
    ):
        if isinstance(refiner.config.network, FeaturesNetwork):
            raise InputError("weights that refine predictions", "a model with features", "the universal weights")
        for name, value, most in (("weight", weight, 0.95), ("hold", hold, 0.95), ("cut", cut, 1)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise InputError(f"{name} from 0 to {most}", repr(value)[:60], "a number within")
        self.refiner, self.config = refiner, refiner.config
        self.weight, self.hold, self.align, self.cut = float(weight), float(hold), align, float(cut)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames, as before the first one of another video."""
        self.carried = 0.0
        self._frame: Tensor | None = None  # (3, H, W), the last one
        self._evidence = self._answer = torch.zeros(0)  # (K, H, W) float16 log-probabilities

    @plain_defaults()
    @memory_for("memory for all classes of a frame, now and before", "smaller frames, or fewer classes")
    @torch.no_grad()
    def refine(
        self,
        image: ImageLike,
        prediction: object,
        *,
        kind: AnyKind = "auto",
        preset: Preset = "default",
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        num_samples: int = 1,
        guidance_scale: float = 0.0,
        early_exit: float = 0.0,
        tile: int | None = None,
        ignore_index: int = 255,
        num_classes: int | None = None,
        return_probs: bool = True,
        progress: bool = False,
    ) -> Refinement:
        """Refines the next frame.

        Args:
            image: the frame, as `DDPSRefiner.refine` takes one.
            prediction: the segmentor's answer for it. Label maps may name classes that earlier ones did not.
            kind, preset, steps, sampler, seed, num_samples, guidance_scale, early_exit, tile, ignore_index,
            num_classes, return_probs, progress: as for `DDPSRefiner.refine`.

        Returns:
            The frame's answer; `changed` is held against the segmentor's own of this frame.

        Raises:
            InputError: any input that does not fit; memory then is as it was.
        """
        if prediction is None:
            raise InputError("the segmentor's prediction", "None", "logits (K, h, w), or a label map (h, w)")
        pixels = load_image(image)
        taken, kind = adapt(pixels, prediction, kind)
        prediction = cast(PredictionLike, taken)  # one image, one prediction
        known = self._load(prediction, (pixels.shape[-2], pixels.shape[-1]), kind, ignore_index, num_classes)
        motion, weight = self._compare(pixels, known)
        evidence = _pooled(known.probs(), self._evidence, motion, self.weight * weight)
        given: Array | PredictionLike
        if known.kind == "labels":
            given = evidence.argmax(0).masked_fill(known.void, known.ignore_index)
        else:
            given = evidence.softmax(0)
        refined = self.refiner.refine(
            pixels,
            given,
            kind="labels" if known.kind == "labels" else "probs",
            preset=preset,
            steps=steps,
            sampler=sampler,
            seed=seed,
            num_samples=num_samples,
            guidance_scale=guidance_scale,
            early_exit=early_exit,
            tile=tile,
            ignore_index=ignore_index,
            num_classes=known.num_classes,
            progress=progress,
        )
        assert isinstance(refined, Refinement)  # one image, one answer
        answer = _pooled(torch.as_tensor(refined.probs), self._answer, motion, self.hold * weight)
        self._frame, self._evidence, self._answer = pixels, _remembered(evidence), _remembered(answer)
        self.carried = float(weight.mean())
        return convert_container(_with_answer(refined, answer, known, return_probs), prediction)

    def _load(
        self, prediction: PredictionLike, size: tuple[int, int], kind: AnyKind, ignore_index: int, classes: int | None
    ) -> Prediction:
        classes = self.config.labels.num_classes if classes is None else classes
        known = load_prediction(prediction, size, kind, ignore_index, classes)
        before = len(self._evidence)
        if not before or known.num_classes == before:
            return known
        if known.kind == "labels" and classes is None:
            return replace(known, num_classes=max(known.num_classes, before))
        got = f"{known.num_classes} classes"
        raise InputError(f"{before} classes, as in the frames before", got, "reset() before another video")

    def _compare(self, pixels: Tensor, known: Prediction) -> tuple[Motion, Tensor]:
        """What moved since the last frame, and how much the past may count at every pixel, (H, W) from 0 to 1."""
        nothing = Motion(), torch.zeros(known.size)
        if self._frame is None or self._frame.shape != pixels.shape:
            # of a picture of another size nothing can be carried over, whatever its classes
            self._evidence = self._answer = torch.zeros(known.num_classes, *known.size)
            return nothing
        new = known.num_classes - len(self._evidence)
        if new:
            self._evidence, self._answer = (
                F.pad(memory, (0, 0, 0, 0, 0, new), value=-MOST_TRUST) for memory in (self._evidence, self._answer)
            )
        motion = find_motion(pixels, self._frame) if self.align else Motion()
        same = unchanged(pixels, self._frame, motion)
        return (motion, same) if float(same.mean()) > 1 - self.cut else nothing


def flicker(
    labels: Array,
    previous_labels: Array,
    image: ImageLike,
    previous_image: ImageLike,
    threshold: float | None = None,
    align: bool = True,
) -> float:
    """Share of the pixels that get another class although the picture does not change there.

    Args:
        labels, previous_labels: (H, W) class ids of a frame and of the one before, numpy or torch.
        image, previous_image: the two frames.
        threshold: difference of the frames after a blur, in (0, 1], up to which a pixel counts as unchanged; None for
            one above the noise, see `motion.unchanged`.
        align: whether one motion of the whole picture is found and undone first.

    Returns:
        From 0 to 1; nan where nothing is unchanged.

    Raises:
        InputError: sizes that differ, or a threshold out of its range.
    """
    now, before = load_image(image), load_image(previous_image)
    ours, theirs = torch.as_tensor(labels).cpu(), torch.as_tensor(previous_labels).cpu()
    shapes = {tuple(ours.shape), tuple(theirs.shape), tuple(now.shape[1:]), tuple(before.shape[1:])}
    if len(shapes) > 1:
        raise InputError("labels and frames of one size", ", ".join(map(str, sorted(shapes))), "one video's frames")
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError("threshold above 0, at most 1", repr(threshold)[:60], "None for one above the noise")
    motion = find_motion(now, before) if align else Motion()
    same = unchanged(now, before, motion, threshold) >= 0.5
    # class ids up to 2^24 are exact in float32
    moved = motion.carry(theirs[None].float(), "nearest")[0].long()
    return float((moved != ours)[same].float().mean())


def _pooled(probs: Tensor, memory: Tensor, motion: Motion, weight: Tensor) -> Tensor:
    """(K, H, W) log-linear pool of probabilities with what is remembered, not normalised."""
    log_probs = probs.clamp(min=LEAST).log()
    if not bool(weight.any()):
        return log_probs
    return torch.lerp(log_probs, motion.carry(memory.float()), weight)


def _remembered(log_probs: Tensor) -> Tensor:
    return (log_probs - log_probs.amax(0)).clamp(min=-MOST_TRUST).half()


def _with_answer(refined: Refinement, answer: Tensor, known: Prediction, return_probs: bool) -> Refinement:
    probs = answer.softmax(0)
    top = probs.topk(min(2, len(probs)), 0)
    labels = top.indices[0].masked_fill(known.void, known.ignore_index)
    unsure = 1 - (top.values[0] - top.values[1]) if len(probs) > 1 else torch.zeros_like(probs[0])
    return replace(
        refined,
        labels=labels,
        probs_source=probs if return_probs else None,
        uncertainty=unsure.clamp(0, 1),
        changed=(labels != known.argmax()) & ~known.void,
    )
