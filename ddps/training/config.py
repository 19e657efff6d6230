"""Every setting of a training run, kept as one JSON file in the run's folder."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from ..config import DDPSConfig, LogitsNetwork, build, check_range
from ..errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `train`.

    Args:
        data: folders with `train/images`, `train/masks`, optional `val/…` and `classes.json`.
        predictions: folder with a segmentor's predictions, see `ddps.training.data`; empty: synthetic mistakes only.
        data_weights: how often each data set is drawn, in any unit; empty means by the square root of its size.
        steps: optimizer steps; batch_size: crops per step and process; crop: their side in pixels, a multiple of the
            network's stride.
        lr, weight_decay, warmup, clip: AdamW with linear warm-up, cosine decay to 0, gradient norm clipped.
        ema: decay of the weights' running average, which is what is validated and shipped.
        real_share: share of crops with a real prediction where there is one; the others get synthetic mistakes.
        repair_share: share of real predictions with some mistakes mended, as a better segmentor would make them.
        label_map_share: share of synthetic mistakes that are rough label maps without confidence.
        collage_share: share of crops with regions of other images pasted in, see `ddps.training.collage`.
        condition_dropout: share of crops whose image is blanked, which classifier-free guidance needs.
        own_share: share of steps whose noised mask is the network's own first prediction; half of the others start
            from pure noise, as a chain does, the rest from the segmentor's answer.
        boundary_weight: extra weight of pixels within 4 px of a true outline; iou_weight: of the soft IoU loss.
        amp: bfloat16 autocast ("auto": on CUDA, and on CPUs with native bfloat16).
        validate_every, save_every: steps; validate_images: per data set.
        workers: loading processes (0: in the training process itself).
        init: weights to start from; init_rate: their learning rate, as a share of that of weights which start anew.
        class_balance: a class that covers a share f of the pixels weighs f^-class_balance, for refiners of one label
            space; 0 for equal weights.
        naming_weight: weight of the loss of what such a refiner says about classes by name; taught_share: share of the
            training images that teach it the classes; from the others it learns how far to trust what it says of images
            that it was not taught; refined_share: share of a batch's crops that are of these others, and refined.
        hold_out: share of the training images to validate on, of data sets without a `val` split.
        segmentor, predictor: the user's as `module:callable`, to be trained on all folds but one and asked for that
            one, or trained already and asked for all images; see `ddps.training.user_segmentor`; folds: how many.
    """

    data: tuple[str, ...]
    out: str
    predictions: str = ""
    data_weights: tuple[float, ...] = ()
    steps: int = 8000
    batch_size: int = 8
    crop: int = 192
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 200
    clip: float = 1.0
    ema: float = 0.998
    real_share: float = 0.65
    repair_share: float = 0.6
    label_map_share: float = 0.4
    own_share: float = 0.6
    collage_share: float = 0.2
    condition_dropout: float = 0.05
    boundary_weight: float = 2.0
    iou_weight: float = 0.3
    amp: str = "auto"
    device: str = "auto"
    seed: int = 0
    workers: int = 0
    validate_every: int = 500
    validate_images: int = 12
    save_every: int = 100
    init: str = ""
    init_rate: float = 0.3
    class_balance: float = 0.4
    naming_weight: float = 1.0
    refined_share: float = 0.25
    taught_share: float = 0.6
    hold_out: float = 0.2
    segmentor: str = ""
    predictor: str = ""
    folds: int = 4
    model: DDPSConfig = field(default_factory=DDPSConfig)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 10**8), ("batch_size", 1, 4096), ("crop", 32, 4096), ("lr", 1e-8, 1.0), ("warmup", 0, 10**6),
            ("weight_decay", 0, 10), ("clip", 1e-6, 1e6), ("ema", 0, 0.99999), ("real_share", 0, 1),
            ("repair_share", 0, 1), ("label_map_share", 0, 1),
            ("own_share", 0, 1), ("collage_share", 0, 1), ("condition_dropout", 0, 1),
            ("boundary_weight", 0, 100), ("init_rate", 0, 1), ("class_balance", 0, 1), ("naming_weight", 0, 100),
            ("refined_share", 0, 1), ("taught_share", 0.1, 1), ("hold_out", 0, 0.9), ("folds", 2, 1000),
            ("iou_weight", 0, 100), ("workers", 0, 256), ("validate_every", 1, 10**8),
            ("validate_images", 0, 10**6), ("save_every", 1, 10**8),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        for weight in self.data_weights:
            check_range("data_weights", weight, 1e-9, 1e9)
        if not self.data:
            raise InputError("at least one data set", "none", "the folder of one")
        given = [name for name in ("predictions", "segmentor", "predictor") if getattr(self, name)]
        if len(given) > 1:
            raise InputError("predictions, segmentor or predictor", " and ".join(given), "one of them")
        if given and given != ["predictions"] and len(self.data) > 1:
            raise InputError(f"one data set with {given[0]}", str(len(self.data)), "predictions made beforehand")
        if self.amp not in ("auto", "bf16", "off"):
            raise InputError("amp 'auto', 'bf16' or 'off'", repr(self.amp)[:60], "one of these")
        network = self.model.network
        if isinstance(network, LogitsNetwork) and self.crop % network.stride:
            raise InputError(f"crop as a multiple of {network.stride}", str(self.crop), "the nearest one")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        return build(cls, json.loads(text), "train.json")

    @property
    def run(self) -> Path:
        return Path(self.out)
