"""Every setting of the paper's training, as one readable JSON file: a recipe, and a run of it.

Source: DDPS, arXiv 2306.01721, sections 3.3 and 4.1.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...config import DDPSConfig, FeaturesNetwork, build, check_range
from ...datasets import Layout
from ...errors import InputError


@dataclass(frozen=True)
class DataConfig:
    """What a training image goes through, in this order.

    Args:
        layout: of the data set's folders, see `ddps.datasets`.
        fit: (long, short) side in pixels that an image is made to fit before `resize`; () for its own size.
        resize: (smallest, largest) factor of a random resize.
        crop: side of the square crop in pixels; what is missing is filled with the mean colour and void.
        most_of_one_class: a crop with a larger share of one class is drawn again, ten times at most.
        flip: chance of a horizontal flip.
        photometric: whether brightness, contrast, saturation and hue are distorted.
    """

    layout: Layout
    fit: tuple[int, ...]
    resize: tuple[float, float]
    crop: int
    most_of_one_class: float
    flip: float
    photometric: bool

    def validate(self) -> None:
        if len(self.fit) not in (0, 2):
            raise InputError("data.fit as [long, short] or []", f"{len(self.fit)} numbers", "[2048, 512]")
        for side in self.fit:
            check_range("data.fit", side, 16, 65536)
        for factor in self.resize:
            check_range("data.resize", factor, 0.05, 20)
        if self.resize[0] > self.resize[1]:
            raise InputError("data.resize as [smallest, largest]", str(list(self.resize)), "the other order")
        check_range("data.crop", self.crop, 32, 8192)
        check_range("data.most_of_one_class", self.most_of_one_class, 0.05, 1)
        check_range("data.flip", self.flip, 0, 1)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is noised in the multi-step stage.

    Args:
        noised: "first_prediction" (the paper): the network's own answer to a random mask, and the truth at i = 0;
            "ground_truth": the truth at every time; "segmentor": the segmentor's own prediction at every time.
        condition_dropout: share of images whose condition is zeroed, which guidance and `ddps prior` need.
    """

    noised: Literal["first_prediction", "ground_truth", "segmentor"]
    condition_dropout: float

    def validate(self) -> None:
        check_range("objective.condition_dropout", self.condition_dropout, 0, 1)


@dataclass(frozen=True)
class StageConfig:
    """One of the two stages.

    Args:
        iterations: optimizer steps; 0 leaves the stage out.
        halve_every: iterations after which the learning rate is halved, again and again.
        fusion: "frozen"; "trained"; or "frozen_if_given": frozen where the segmentor's weights bring a trained fusion,
            and trained where they do not, since a random one would throw the features away.
        embedding: the class embedding, likewise. It starts as random codes. In the single-step stage the mask is noise,
            from which it could only learn to be ignored, so it is frozen there, too.
    """

    iterations: int
    halve_every: int
    fusion: Literal["frozen", "frozen_if_given", "trained"]
    embedding: Literal["frozen", "trained"]

    def validate(self, name: str) -> None:
        check_range(f"{name}.iterations", self.iterations, 0, 10**8)
        check_range(f"{name}.halve_every", self.halve_every, 1, 10**8)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, and the running average of the weights.

    Args:
        batch_size: crops per step and process.
        lr, betas, weight_decay: of AdamW; the decay acts on every trained tensor.
        warmup: iterations of linear warm-up at the start of each stage; warmup_lr: where it starts.
        clip: largest norm of the gradient; 0 for no limit.
        ema_momentum: share of the weights that the average takes up each time; ema_every: iterations from one time to
            the next.
    """

    batch_size: int
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    warmup: int
    warmup_lr: float
    clip: float
    ema_momentum: float
    ema_every: int

    def validate(self) -> None:
        for name, low, high in (
            ("batch_size", 1, 4096), ("lr", 1e-9, 1), ("weight_decay", 0, 10), ("warmup", 0, 10**6),
            ("warmup_lr", 0, 1), ("clip", 0, 1e6), ("ema_momentum", 1e-6, 1), ("ema_every", 1, 10**6),
        ):  # fmt: skip
            check_range(f"optimizer.{name}", getattr(self, name), low, high)
        for beta in self.betas:
            check_range("optimizer.betas", beta, 0, 0.999999)


@dataclass(frozen=True)
class ReportConfig:
    """How often a run looks at itself, in iterations.

    Args:
        log_every, validate_every, save_every: iterations.
        validate_images: of the validation split; 0 for all.
        amp: bfloat16 autocast: "auto" (where it is native), "bf16" or "off".
    """

    log_every: int
    validate_every: int
    validate_images: int
    save_every: int
    amp: Literal["auto", "bf16", "off"]

    def validate(self) -> None:
        for name, low in (("log_every", 1), ("validate_every", 1), ("validate_images", 0), ("save_every", 1)):
            check_range(f"report.{name}", getattr(self, name), low, 10**8)


@dataclass(frozen=True)
class Recipe:
    """What one of `ddps/training/recipes/*.json` holds.

    Args:
        name: of the recipe.
        notes: where its settings come from, and what the sources leave open.
        model: label space, noise schedule and kernel, network, backbone and inference defaults of the result. Names and
            colours of the classes are filled in from the data set.
        data, objective, single_step, multi_step, optimizer, report: see there. The single-step stage sees i = 0 only;
            the multi-step stage starts from its averaged weights.
    """

    name: str
    notes: tuple[str, ...]
    model: DDPSConfig
    data: DataConfig
    objective: ObjectiveConfig
    single_step: StageConfig
    multi_step: StageConfig
    optimizer: OptimizerConfig
    report: ReportConfig

    def __post_init__(self) -> None:
        self.data.validate()
        self.objective.validate()
        self.single_step.validate("single_step")
        self.multi_step.validate("multi_step")
        self.optimizer.validate()
        self.report.validate()
        if not isinstance(self.model.network, FeaturesNetwork):
            raise InputError("a recipe with network.conditioning 'features'", "'logits'", "ddps train without --recipe")
        if self.model.labels.num_classes is None:
            raise InputError("a recipe with labels.num_classes", "none", "the number of classes of the data set")
        if not self.iterations:
            raise InputError("iterations in single_step or multi_step", "none", "at least 1 in one of them")

    @property
    def network(self) -> FeaturesNetwork:
        """Sizes of the denoiser."""
        assert isinstance(self.model.network, FeaturesNetwork)
        return self.model.network

    @property
    def iterations(self) -> int:
        """Of both stages."""
        return self.single_step.iterations + self.multi_step.iterations


@dataclass(frozen=True)
class PaperRun:
    """A recipe with everything that belongs to one run of it; kept as `train.json` in the run's folder.

    Args:
        recipe: the settings.
        data: root of the data set.
        out: the run's folder.
        backbone: folder of the frozen segmentor, see `ddps.training.paper.segmentor`; empty where the caller of
            `train_recipe` hands one over.
        predictions: ROOT with `{train,val}/<stem>.{npz,npy,png}`, the segmentor's own predictions, where the segmentor
            itself gives none; empty for none.
        init: a features model to start from (folder, Hub id); empty for random weights.
        device, seed, workers: as in `TrainConfig`.
    """

    recipe: Recipe
    data: str
    out: str
    backbone: str = ""
    predictions: str = ""
    init: str = ""
    device: str = "auto"
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("workers", self.workers, 0, 256)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "PaperRun":
        return build(cls, json.loads(text), "train.json")

    @property
    def folder(self) -> Path:
        return Path(self.out)
