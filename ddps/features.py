"""The paper's own models: an image, or a segmentor's feature maps of it, in, a mask out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .batches import check_features, feature_lists, is_batch, prediction_list
from .canvas import check_finite, mix_probs
from .config import DDPSConfig
from .defaults import plain_defaults
from .diffusion import samplers
from .diffusion.schedules import Schedule, network_steps
from .errors import InputError, whole_number
from .inputs import ImageLike, load_image
from .models.latest_steps import LatestSteps
from .models.paper import FeaturesDenoiser
from .models.paper_inference import BoundNetwork, StepNetwork
from .out_of_memory import memory_for
from .outputs import Refinement, convert_container
from .predictions import AnyKind, Prediction, PredictionLike, load_prediction
from .progress import Progress
from .segmentors import ImageDenoiser
from .settings import Settings
from .slots import slot_kernel
from .visualize import default_palette
from .void_first import labels_to_users, probs_to_network, probs_to_users

# Values of one window of the answer: 128 MiB, whatever the image's size and the number of classes.
WINDOW_VALUES = 1 << 25


@dataclass(frozen=True, eq=False)
class PaperCall:
    """One call of `DDPSRefiner.refine` on the paper's model; see there for what has no comment here.

    Args:
        latest: what the refiner's calls share.
    """

    network: FeaturesDenoiser
    latest: LatestSteps
    config: DDPSConfig
    schedule: Schedule
    dtype: torch.dtype
    settings: Settings
    kind: AnyKind
    ignore_index: int
    num_classes: int | None
    raw_labels: bool
    return_probs: bool
    progress: bool

    def refine(
        self,
        image: ImageLike | Sequence[ImageLike],
        features: Sequence[Tensor] | Sequence[Sequence[Tensor]] | None,
        prediction: PredictionLike | Sequence[PredictionLike] | None,
    ) -> Refinement | list[Refinement]:
        """From noise to a mask, conditioned on feature maps (DDPS, arXiv 2306.01721, section 3.4).

        Args:
            image: one, or a batch.
            features: of the image, finest first; None for the model's own encoder.
            prediction: the segmentor's own, to mix with and to tell what changed; None leaves both out.

        Raises:
            InputError: any input that does not fit.
        """
        if features is None and not isinstance(self.network, ImageDenoiser):
            raise InputError(
                "features=[stride 4, 8, 16, 32] of the image, which these weights need",
                "no features",
                "the feature maps of the segmentor that they were trained with",
            )
        whole_number("ignore_index", self.ignore_index, -(2**31), 2**31 - 1)
        if self.config.labels.void_first and 0 <= self.ignore_index < self.users_classes:
            raise InputError("an ignore_index that is no class", str(self.ignore_index), "255, where void goes")
        if not is_batch(image):
            return self._refine_one(image, features, prediction)  # type: ignore[arg-type]
        images: list[ImageLike] = list(image)  # type: ignore[arg-type]
        maps = [None] * len(images) if features is None else feature_lists(features, len(images))
        given = [None] * len(images) if prediction is None else prediction_list(prediction)
        if len(given) != len(images):
            raise InputError(f"a prediction for each of {len(images)} images", str(len(given)), "as many of both")
        bar = Progress(len(images), "refining", self.progress)
        answers = []
        # One by one: what shares a batch must not change an image's noise, not even in the last bit of its logits.
        for one, its, known in zip(images, maps, given, strict=True):
            answers.append(self._refine_one(one, its, known))
            bar.advance()
        return answers

    @property
    def users_classes(self) -> int:
        return self.network.network.num_classes - self.config.labels.void_first

    @property
    def in_users_space(self) -> bool:
        """Whether the answer has another label space than the network."""
        return self.config.labels.void_first and not self.raw_labels

    @property
    def answers_classes(self) -> int:
        return self.users_classes if self.in_users_space else self.network.network.num_classes

    @memory_for("memory for an image that this model sees whole", "a smaller image, or another device")
    @torch.no_grad()
    def _refine_one(
        self, image: ImageLike, features: Sequence[Tensor] | None, prediction: PredictionLike | None
    ) -> Refinement:
        started = time.perf_counter()
        pixels = load_image(image)
        size = (pixels.shape[-2], pixels.shape[-1])
        known = None if prediction is None else self._load(prediction, size)
        if features is not None:
            check_features(features)
        like: object = image if prediction is None else prediction
        if prediction is None and features is not None:
            like = features[0]
        device = next(self.network.parameters()).device
        trajectory: list[Tensor] = []
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            covered = size
            if features is None:
                assert isinstance(self.network, ImageDenoiser)
                features, covered = self.network.encode(pixels[None].to(device))
            condition = self.network.condition(features)
            if len(condition) != 1:
                raise InputError("features of one image", f"of {len(condition)}", "a list of as many images")

        def record(step: samplers.Step) -> None:
            if self.settings.return_trajectory:
                trajectory.append(_Answer(self, [step.logits[0].float()], covered, size, None).labels()[0])

        denoiser = self._steps.bind(condition, self.settings.guidance_scale)
        chains = [
            self._chain(denoiser, sample, record if sample == 0 else None)
            for sample in range(self.settings.num_samples)
        ]
        *before, last = [
            self._refinement(_Answer(self, logits, covered, size, known), known) for logits in zip(*chains, strict=True)
        ]
        refined = replace(
            last,
            trajectory=trajectory if self.settings.return_trajectory else None,
            seconds=time.perf_counter() - started,
            after=dict(zip(self.settings.after, before, strict=True)),
        )
        return convert_container(refined, like)

    def _refinement(self, answer: "_Answer", known: Prediction | None) -> Refinement:
        labels, uncertainty = answer.labels()
        changed = torch.zeros_like(labels, dtype=torch.bool)
        if known is not None:
            labels[known.void] = self.ignore_index
            changed = (labels != known.argmax()) & ~known.void
        space = self.config.labels
        names, palette = space.names, space.palette
        if space.void_first and self.raw_labels:
            names = ("void", *names) if names else ()
            palette = ((0, 0, 0), *palette) if palette else ()
        return Refinement(
            labels=labels,
            probs_source=answer.probs if self.return_probs else None,
            uncertainty=uncertainty,
            changed=changed,
            palette=palette or default_palette(self.answers_classes),
            names=names,
        )

    def _load(self, prediction: PredictionLike, size: tuple[int, int]) -> Prediction:
        classes = self.answers_classes
        if self.num_classes not in (None, classes):
            raise InputError(f"num_classes={classes}, as these weights have", str(self.num_classes), "leaving it out")
        return load_prediction(prediction, size, self.kind, self.ignore_index, classes)

    @cached_property
    def _steps(self) -> StepNetwork:
        """The network, folded once for all images and chains of this call, and of the next ones like it."""
        times = network_steps(self.schedule.num_steps, self.settings.steps)
        return self.latest.of(self.network, times, None if self.dtype == torch.float32 else self.dtype)

    def _chain(self, denoiser: BoundNetwork, sample: int, record: samplers.Callback | None) -> list[Tensor]:
        """(K, h, w) float32 logits of one run: after each of `settings.after`, then after the last step."""
        settings = self.settings
        answers: list[Tensor] = []
        ran: list[samplers.Step] = []

        def callback(step: samplers.Step) -> None:
            ran[:] = [step]
            if step.index + 1 in settings.after:
                answers.append(step.logits[0].float())
            for one in (record, settings.callback):
                if one is not None:
                    one(step)

        kernel = slot_kernel(self.config.schedule, self.network.network.num_classes)
        seed = (settings.seed + sample * 6364136223846793005) % 2**63
        generators = [torch.Generator().manual_seed(seed)]
        shape, device = denoiser.shape, denoiser.stem.device
        if settings.sampler == "single":
            logits = samplers.single(
                denoiser, None, kernel, self.schedule, generators, callback, shape=shape, device=device
            )
        else:
            run = samplers.posterior if settings.sampler == "posterior" else samplers.free
            logits = run(
                denoiser,
                None,
                kernel,
                self.schedule,
                settings.steps,
                generators,
                callback,
                shape=shape,
                device=device,
                early_exit=settings.early_exit,
            )
        # a chain that ended early would have gone on showing the same
        for index in range(ran[0].index + 1, settings.steps):
            if record is not None:
                record(replace(ran[0], index=index))
        answer = logits[0].float()
        for one in (*answers, answer):
            check_finite(one)
        return [*answers, *[answer] * (len(settings.after) - len(answers)), answer]


class _Answer:
    """What the chains say at image size, window by window: all classes of a large image at once take gigabytes.

    Args:
        call: label spaces and settings.
        chains: (K, h, w) logits each, over the network's classes.
        covered: (H, W) that the logits cover, in pixels; at least `size`.
        size: (H, W) of the image.
        known: the segmentor's own prediction, in the answer's label space, to mix with.
    """

    def __init__(
        self,
        call: PaperCall,
        chains: Sequence[Tensor],
        covered: tuple[int, int],
        size: tuple[int, int],
        known: Prediction | None,
    ):
        self.call, self.size, self.known = call, size, known
        self.chains = [Prediction(logits, covered, "logits", len(logits)) for logits in chains]

    def labels(self) -> tuple[Tensor, Tensor]:
        """(H, W) int64 answer, and (H, W) float32 uncertainty: 1 minus the margin of the best class."""
        labels = torch.empty(self.size, dtype=torch.int64)
        uncertainty = torch.empty(self.size)
        for rows, probs in self._windows():
            top = probs.topk(2, 0)
            labels[rows] = top.indices[0].cpu()
            uncertainty[rows] = (1 - (top.values[0] - top.values[1])).clamp(0, 1).cpu()
        return labels_to_users(labels, self.call.ignore_index) if self.call.in_users_space else labels, uncertainty

    @plain_defaults()
    def probs(self) -> Tensor:
        """(K, H, W) float32 probabilities over the answer's classes."""
        whole: Tensor | None = None
        for rows, probs in self._windows():
            if self.call.in_users_space:
                probs = probs_to_users(probs)
            if whole is None:
                whole = torch.empty(len(probs), *self.size)
            whole[:, rows] = probs.cpu()
        assert whole is not None
        return whole

    def _windows(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows, and (K, rows, W) probabilities over the network's classes."""
        height, width = self.size
        step = max(1, WINDOW_VALUES // (width * self.chains[0].num_classes))
        for top in range(0, height, step):
            rows = min(step, height - top)
            probs = self.chains[0].crop(top, 0, rows, width)
            for chain in self.chains[1:]:
                probs += chain.crop(top, 0, rows, width)
            probs /= len(self.chains)
            if self.known is not None:
                settings = self.call.settings
                mix = settings.label_mix if self.known.kind == "labels" else settings.mix
                own = self.known.crop(top, 0, rows, width).to(probs.device)
                probs = mix_probs(probs_to_network(own) if self.call.in_users_space else own, probs, mix)
            yield slice(top, top + rows), probs
