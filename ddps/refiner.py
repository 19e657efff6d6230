"""`DDPSRefiner`: any segmentor's prediction in, a better mask out."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from . import hub
from .adapters import adapt
from .batches import is_batch, prediction_list
from .canvas import Canvas
from .config import DDPSConfig, LogitsNetwork
from .context import Context, Pixels, context_of
from .defaults import plain_defaults
from .devices import find_device, has_native_bfloat16
from .diffusion import samplers
from .diffusion.schedules import Schedule, make_schedule
from .errors import InputError
from .features import PaperCall
from .inputs import ImageLike, load_image
from .models.fold import folded
from .models.latest_steps import LatestSteps
from .models.paper import FeaturesDenoiser
from .models.slot_unet import SlotUNet, channels_last
from .out_of_memory import in_tiles_that_fit, memory_for
from .outputs import Refinement, convert_container
from .prediction_window import LabelWindow
from .predictions import AnyKind, Prediction, PredictionLike, load_prediction
from .progress import Progress
from .segmentors import ImageDenoiser
from .settings import Preset, Settings
from .slots import SlotPlan, slots_of
from .tile_chain import TileChain, keep_in_reach, zoom_of
from .tiling import Tile, chain_seed, plan_tiles
from .visualize import default_palette

# A tile in which the segmentor is this sure everywhere has nothing to refine.
SURE = 0.999
MEMORY_HINT = "ddps.large.refine_large(), which never holds the whole image, or another device"
# How far from its own pixels a class of a label map may appear: in pixels, and as a share of the image's diagonal.
REACH_PIXELS, REACH_SHARE = 16, 0.02


class DDPSRefiner:
    """Refines the masks of any segmentor by discrete diffusion (DDPS, arXiv 2306.01721).

    Args:
        config: label space, schedule, network and inference defaults.
        network: a network that the config describes, with its weights.
        device: where it runs; None for CUDA if there is one, else the CPU.
        dtype: torch.float32, or torch.bfloat16 or torch.float16 for autocast.
        source: where the weights came from, for messages.
    """

    def __init__(
        self,
        config: DDPSConfig,
        network: nn.Module,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        source: str = "",
    ):
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise InputError("dtype float32, bfloat16 or float16", str(dtype), "torch.float32")
        self.config, self.dtype, self.source = config, dtype, source
        self.device = find_device(device)
        self.network = channels_last(network.to(self.device)).eval().requires_grad_(False)
        # what runs; `network` keeps the weights as they are saved
        self._fast = channels_last(folded(network)) if isinstance(network, SlotUNet) else None
        self._latest = LatestSteps()
        self.schedule: Schedule = make_schedule(config.schedule.kind, config.schedule.num_steps)

    @classmethod
    @plain_defaults()
    def from_pretrained(
        cls,
        source: str | Path = "universal",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "DDPSRefiner":
        """Loads a refiner: weights from the package (no network), a folder, or the Hugging Face Hub.

        Args:
            source: "universal", a folder that `save_pretrained` wrote, or a Hub id "org/name".
            revision, token, cache_dir, local_files_only: as huggingface_hub understands them.
            device: None for CUDA if there is one, else the CPU.
            dtype: see the class; None for bfloat16 where the hardware computes in it, else float32. Models conditioned
                on features take float32 unless told otherwise.

        Raises:
            InputError: no such weights, a config out of bounds, tensors that do not fit or are not finite.
        """
        config, weights, _ = hub.load_weights(
            source,
            build_network,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        with torch.random.fork_rng(devices=[]):  # what a program draws next must not depend on what is drawn here
            network = build_network(config)
        network.load_state_dict(weights)
        where = find_device(device)
        if dtype is None:
            fast = isinstance(network, SlotUNet) and has_native_bfloat16(where)
            dtype = torch.bfloat16 if fast else torch.float32
        return cls(config, network, where, dtype, str(source))

    def compile(self, backend: str = "inductor", mode: str | None = None) -> "DDPSRefiner":
        """Compiles the network with torch.compile, once for all sizes and numbers of classes.

        The first calls take minutes. Meant for CUDA; a CPU needs a C++ compiler and gains a tenth.

        Args:
            backend: of torch.compile.
            mode: of the paper's models: None, or "reduce-overhead" for CUDA graphs, which are recorded for every size.

        Returns:
            The refiner itself.
        """
        if self._fast is None:
            self._latest.compiled_with = backend, mode
            return self
        for name in ("condition", "denoise", "finish"):
            compiled = torch.compile(getattr(self._fast, name), fullgraph=True, dynamic=True, backend=backend)
            setattr(self._fast, name, compiled)
        return self

    def save_pretrained(self, directory: str | Path, card: hub.CardLike = None, half: bool = False) -> Path:
        """Writes config.json, model.safetensors and a model card (README.md) into a folder; see `hub.save_weights`."""
        return hub.save_weights(directory, self.config, self.network.state_dict(), card, half=half)

    def push_to_hub(
        self,
        repo_id: str,
        card: hub.CardLike = None,
        half: bool = False,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
    ) -> str:
        """Uploads config, weights and card to "org/name", returns the address; see `save_weights`, `push` in hub.py."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            hub.save_weights(folder, self.config, self.network.state_dict(), card, half=half, source=repo_id)
            return hub.push(folder, repo_id, token=token, private=private, revision=revision)

    # Not inference_mode: its tensors can neither be changed in place nor take part in autograd afterwards.
    @plain_defaults()
    @torch.no_grad()
    def refine(
        self,
        image: ImageLike | Sequence[ImageLike],
        prediction: object = None,
        *,
        kind: AnyKind = "auto",
        preset: Preset = "default",
        steps: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        num_samples: int = 1,
        guidance_scale: float = 0.0,
        tile: int | None = None,
        ignore_index: int = 255,
        num_classes: int | None = None,
        features: Sequence[Tensor] | Sequence[Sequence[Tensor]] | None = None,
        raw_labels: bool = False,
        return_trajectory: bool = False,
        return_probs: bool = True,
        progress: bool = False,
        callback: samplers.Callback | None = None,
        after: Sequence[int] = (),
        early_exit: float = 0.0,
    ) -> Refinement | list[Refinement]:
        """Refines one prediction, or a list of them.

        Args:
            image: path, PIL image, uint8 (H, W, 3) or (H, W) numpy, uint8 or [0, 1] float (3, H, W) torch; for a batch
                a list (sizes may differ) or (B, 3, H, W) torch.
            prediction: (K, h, w) logits or probabilities at any resolution, K = 1 meaning a sigmoid foreground; an
                (h, w) label map; a path to .npz, .npy or .png; what a segmentor of transformers, torchvision,
                segmentation_models_pytorch or mmseg returns (`ddps.adapters`); for a batch a list or (B, K, h, w).
            kind: what the prediction is; "auto" raises where the values leave it open.
            preset: "fast" (one pass at the image's own size, six classes of a tile and the rest), "default" (the
                model's own settings) or "best" (plug-in refiners: images enlarged to a short side of 720 px; the
                paper's models: all T steps). What else is given goes before it.
            steps: passes of the network, 1 to T; None for the preset's.
            sampler: "free" (the paper's re-noising), "posterior" (the strict scheme) or "single" (one pass).
            seed: of the noise; the same seed and image give the same result whatever shares the batch.
            num_samples: chains to average; more make `uncertainty` steadier, at a proportional cost.
            guidance_scale: g >= 0 of classifier-free guidance, logits·(1+g) - g·logits without the image.
            tile: side of the tiles in pixels that larger images are cut into; None for the model's default.
            ignore_index: label of void pixels in label maps; they stay void.
            num_classes: K of a label map, where its largest id does not tell.
            features: for models conditioned on features: strides 4 to 32 of the segmentor, (1, C, h, w) each; for a
                batch (B, C, h, w) each, or one such list per image. Whole models need neither these nor a prediction.
            raw_labels: answer (and read `prediction`) in the network's own label space, where a whole model may count
                void as class 0, instead of the users', in which void is `ignore_index`.
            return_trajectory: keep the label map after every step.
            return_probs: False leaves `probs` None.
            progress: a bar on stderr over tiles and images, on a terminal.
            callback: called with every `diffusion.samplers.Step`.
            after: increasing numbers of steps, up to `steps`, after which the same chain answers as well
                (`Refinement.after`); each takes about as much memory as the answer itself.
            early_exit: a chain of three steps or more ends once no more than this share of a tile's pixels, in [0, 1),
                has another likeliest class than a step before; 0 for never.

        Returns:
            A Refinement at image size, or a list of them for a batch.

        Raises:
            InputError: any input that does not fit, in one line; `OutOfMemoryError`: not even in smaller tiles.
        """
        settings = Settings.over(
            self.config.inference,
            self.schedule.num_steps,
            steps=steps,
            sampler=sampler,
            seed=seed,
            num_samples=num_samples,
            guidance_scale=guidance_scale,
            tile=tile,
            return_trajectory=return_trajectory,
            callback=callback,
            after=after,
            early_exit=early_exit,
            preset=preset,
            plug_in=isinstance(self.network, SlotUNet),
        )
        if prediction is not None:
            prediction, kind = adapt(image, prediction, kind)
        if isinstance(self.network, FeaturesDenoiser):
            call = PaperCall(
                self.network,
                self._latest,
                self.config,
                self.schedule,
                self.dtype,
                settings,
                kind,
                ignore_index,
                num_classes,
                raw_labels,
                return_probs,
                progress,
            )
            return call.refine(image, features, prediction)
        if features is not None:
            raise InputError("a prediction for this model", "features", "a model with network.conditioning=features")
        if prediction is None:
            raise InputError("the segmentor's prediction", "None", "logits (K, h, w), or a label map (h, w)")
        if not is_batch(image):
            if isinstance(prediction, Tensor) and prediction.ndim == 4 and len(prediction) == 1:
                prediction = prediction[0]
            image, prediction = cast(ImageLike, image), cast(PredictionLike, prediction)
            return self._refine_one(
                image, prediction, kind, ignore_index, num_classes, settings, return_probs, progress
            )
        images, predictions = list(cast(Sequence[ImageLike], image)), prediction_list(prediction)
        if len(images) != len(predictions):
            raise InputError(f"a prediction for each of {len(images)} images", str(len(predictions)), "as many of both")
        bar = Progress(len(images), "refining", progress)
        answers = []
        for one, its in zip(images, predictions, strict=True):
            answers.append(self._refine_one(one, its, kind, ignore_index, num_classes, settings, return_probs, False))
            bar.advance()
        return answers

    def hedge(self, known: Prediction) -> float:
        """Share of the segmentor's own probabilities beside the refined ones in the answer's; a label map has none."""
        return 0.0 if known.kind == "labels" else self.config.inference.hedge

    def _load(
        self, prediction: PredictionLike, size: tuple[int, int], kind: AnyKind, ignore_index: int, classes: int | None
    ) -> Prediction:
        own = self.config.labels.num_classes
        if own is not None and classes is not None and classes != own:
            raise InputError(f"num_classes={own}, as these weights have", str(classes), "the universal weights")
        return load_prediction(prediction, size, kind, ignore_index, own if classes is None else classes)

    @memory_for("memory for the image, its prediction and the answer", MEMORY_HINT)
    def _refine_one(
        self,
        image: ImageLike,
        prediction: PredictionLike,
        kind: AnyKind,
        ignore_index: int,
        num_classes: int | None,
        settings: Settings,
        return_probs: bool,
        progress: bool,
    ) -> Refinement:
        started = time.perf_counter()
        pixels = load_image(image)
        known = self._load(prediction, (pixels.shape[-2], pixels.shape[-1]), kind, ignore_index, num_classes)
        run = partial(self._paint, pixels, known, progress)
        canvases, settings = in_tiles_that_fit(run, settings, known.size, known.num_classes, MEMORY_HINT)
        if known.kind == "labels":
            for canvas in canvases:
                canvas.trust_exact_labels()
        *before, answer = [self._answer(known, canvas, return_probs, settings.tile) for canvas in canvases]
        answer = replace(
            answer,
            trajectory=canvases[-1].trajectory() if settings.return_trajectory else None,
            seconds=time.perf_counter() - started,
            after=dict(zip(settings.after, before, strict=True)),
        )
        return convert_container(answer, prediction)

    def _paint(self, pixels: Tensor, known: Prediction, progress: bool, settings: Settings) -> list[Canvas]:
        """All tiles' answers: one canvas for each of `settings.after`, then that of the last step."""
        mix = settings.label_mix if known.kind == "labels" else settings.mix
        hedge = self.hedge(known)
        records = [*(0 for _ in settings.after), settings.steps if settings.return_trajectory else 0]
        canvases = [Canvas(known, settings.overlap, mix, recorded, hedge) for recorded in records]
        tiles = plan_tiles(known.size, settings.tile, settings.overlap)
        assert self._fast is not None
        chain = TileChain(self._fast, self.schedule, self.config.schedule, settings, self.dtype)
        context = context_of(pixels, known, chain)
        bar = Progress(len(tiles), "tiles", progress)
        for tile in tiles:
            self._refine_tile(pixels, known, tile, settings, chain, canvases, context)
            bar.advance()
        return canvases

    def _answer(self, known: Prediction, canvas: Canvas, return_probs: bool, tile: int) -> Refinement:
        answer = canvas.answers()
        changed = answer.labels != answer.own
        if known.kind == "labels":
            changed &= ~known.void
            answer.labels[known.void] = known.ignore_index
        classes = self.config.labels
        return Refinement(
            labels=answer.labels,
            probs_source=canvas.probs if return_probs else None,
            uncertainty=answer.uncertainty,
            changed=changed,
            palette=classes.palette or default_palette(known.num_classes),
            names=classes.names,
            tile=tile,
        )

    def _refine_tile(
        self,
        pixels: Pixels,
        known: Prediction,
        tile: Tile,
        settings: Settings,
        chain: TileChain,
        canvases: Sequence[Canvas],
        context: Context | None = None,
    ) -> None:
        window = known.window(tile.top, tile.left, tile.height, tile.width)
        most = chain.network.config.max_slots
        found = slots_of(window, min(most, settings.most_slots or most), chain.network.config.classes > 0)
        if found is None and isinstance(window, LabelWindow) and bool((only := window.own_classes().present).any()):
            # it could not get another class; that it is sure counts where tiles overlap
            plan = SlotPlan(only.nonzero()[0], known.num_classes, other=False)
            for canvas in canvases:
                canvas.add(tile, plan, torch.ones(1, tile.height, tile.width))
        if found is None:
            return
        plan, slots = found
        if float(slots.amax(0).min()) > SURE:
            return
        rows, columns = tile.slices_in(Tile(0, 0, *known.size))
        zoom = zoom_of(known.size, settings.working_size)
        around = None if context is None else context.first_pass(tile, plan, slots)
        seeds = [chain_seed(settings.seed, sample, tile) for sample in range(settings.num_samples)]
        record = canvases[-1].recorder(tile, plan)
        answers = chain.refine(
            pixels[:, rows, columns], slots, zoom, known.kind == "labels", seeds, record, plan.ids, around
        )
        for canvas, answer in zip(canvases, answers, strict=True):
            if known.kind == "labels":
                answer = keep_in_reach(answer, slots, max(REACH_PIXELS, REACH_SHARE * math.hypot(*known.size)))
            canvas.add(tile, plan, answer, None if known.kind == "labels" else slots)


def build_network(config: DDPSConfig) -> nn.Module:
    """The network that a config describes, with random weights."""
    if isinstance(config.network, LogitsNetwork):
        return SlotUNet(config.network)
    if config.backbone is None:
        return FeaturesDenoiser(config.network, config.schedule)
    return ImageDenoiser(config.network, config.schedule, config.backbone)
