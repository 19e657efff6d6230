"""What a refiner is, as one strict JSON file: label space, noise schedule, network, inference defaults.

Unknown keys, wrong types and sizes out of bounds are refused before anything is allocated.
"""

import dataclasses
import json
import math
import types
import typing
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .config_size import check_size
from .errors import InputError

FORMAT_VERSION = 4
MAX_BRACKETS = 2**15
"""Of a palette, mostly. Every list costs Python 60 bytes, twenty times its place in the text."""
T = TypeVar("T")


@dataclass(frozen=True)
class LabelSpace:
    """Which classes a refiner answers in. `num_classes=None` means any number (the universal model).

    With `void_first` the network has one class more than its users: its index 0 is void, its index k + 1 is their
    class k. Everything here counts the users' classes (the paper's models: ADE20K 151 and 150, Cityscapes 20 and 19).
    """

    num_classes: int | None = None
    names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    ignore_index: int = 255
    void_first: bool = False

    def validate(self) -> None:
        if self.void_first and (self.num_classes is None or 0 <= self.ignore_index < self.num_classes):
            raise InputError(
                "labels.num_classes, and labels.ignore_index that is no class, with labels.void_first",
                f"{self.num_classes} classes, ignore_index {self.ignore_index}",
                "the number of classes without void, and 255",
            )
        if self.num_classes is not None:
            check_range("labels.num_classes", self.num_classes, 1, 65536)
        check_range("labels.ignore_index", self.ignore_index, -(2**31), 2**31 - 1)
        for name, values in (("names", self.names), ("palette", self.palette)):
            if values and len(values) != self.num_classes:
                raise InputError(
                    f"labels.{name} with one entry per class ({self.num_classes})",
                    f"{len(values)} entries",
                    f"giving {name} for every class or leaving it empty",
                )
        for colour in self.palette:
            for channel in colour:
                check_range("labels.palette", channel, 0, 255)


@dataclass(frozen=True)
class ScheduleConfig:
    """Noise schedule of the forward process (METHOD: linear or cosine; uniform or absorbing kernel)."""

    kind: Literal["linear", "cosine"] = "linear"
    num_steps: int = 20
    kernel: Literal["uniform", "absorbing"] = "uniform"

    def validate(self) -> None:
        check_range("schedule.num_steps", self.num_steps, 2, 4096)


@dataclass(frozen=True)
class LogitsNetwork:
    """Class-agnostic denoiser conditioned on the image and the segmentor's probabilities.

    Widths are channels per level, at strides 2, 4, 8, ... of the image. With `classes` K > 0 the network knows the K
    classes of its label space by name; 0 is for any classes.
    """

    conditioning: Literal["logits"] = "logits"
    image_widths: tuple[int, ...] = (24, 40, 64, 96)
    slot_widths: tuple[int, ...] = (16, 24, 32, 48)
    max_slots: int = 8
    classes: int = 0

    def validate(self) -> None:
        check_range("network.classes", self.classes, 0, 256)
        check_range("network.max_slots", self.max_slots, 2, 64)
        if len(self.image_widths) != len(self.slot_widths) or not 2 <= len(self.slot_widths) <= 6:
            raise InputError(
                "network.image_widths and network.slot_widths of one length, 2 to 6",
                f"{len(self.image_widths)} and {len(self.slot_widths)}",
                "giving one width per level in both",
            )
        for width in self.image_widths + self.slot_widths:
            check_range("network widths", width, 4, 1024)

    @property
    def stride(self) -> int:
        """Side to which an image is padded: the stride of the deepest level, in pixels."""
        return 2 ** len(self.slot_widths)


@dataclass(frozen=True)
class FeaturesNetwork:
    """The paper's denoiser: four feature maps fused to one condition, U-Net at stride 4."""

    conditioning: Literal["features"] = "features"
    in_channels: tuple[int, ...] = (64, 128, 320, 512)
    channels: int = 256
    embed_dim: int = 16
    dim: int = 256
    dim_mults: tuple[int, ...] = (1, 1, 1)
    out_dim: int = 256
    num_classes: int = 151
    dropout: float = 0.1

    def validate(self) -> None:
        check_range("network.in_channels", len(self.in_channels), 1, 8)
        check_range("network.dim_mults", len(self.dim_mults), 1, 8)
        for name in ("channels", "embed_dim", "dim", "out_dim"):
            check_range(f"network.{name}", getattr(self, name), 1, 4096)
        check_range("network.num_classes", self.num_classes, 2, 65536)
        for width in self.in_channels:
            check_range("network.in_channels", width, 1, 16384)
        for multiplier in self.dim_mults:
            check_range("network.dim_mults", multiplier, 1, 16)
        check_range("network.dropout", self.dropout, 0, 0.99)


@dataclass(frozen=True)
class BackboneConfig:
    """The encoder of a whole model: the Mix Transformer of SegFormer (MiT, arXiv 2105.15203); defaults are MiT-B2.

    One entry per stage, finest first. `mean` and `std` normalise RGB values from 0 to 255.
    """

    kind: Literal["mit"] = "mit"
    embed_dims: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratio: int = 4
    qkv_bias: bool = True
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def validate(self) -> None:
        stages = len(self.embed_dims)
        check_range("backbone.embed_dims", stages, 1, 8)
        for name, most in (
            ("embed_dims", 4096),
            ("depths", 128),
            ("num_heads", 64),
            ("sr_ratios", 64),
            ("patch_sizes", 63),
            ("strides", 32),
        ):
            values = getattr(self, name)
            if len(values) != stages:
                raise InputError(f"backbone.{name} with {stages} entries", f"{len(values)}", "one per stage")
            for value in values:
                check_range(f"backbone.{name}", value, 1, most)
        for width, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if width % heads:
                raise InputError("backbone.num_heads that divide embed_dims", f"{heads} and {width}", "a divisor")
        check_range("backbone.mlp_ratio", self.mlp_ratio, 1, 16)
        for value in self.mean:
            check_range("backbone.mean", value, 0, 255)
        for value in self.std:
            check_range("backbone.std", value, 1, 255)


@dataclass(frozen=True)
class InferenceConfig:
    """Defaults of `refine`; every one of them can be overridden per call.

    `mix` is the share m of the refiner q in the answer, p^(1-m) · q^m, where p are the segmentor's own probabilities;
    `label_mix` is m for label maps, which do not say how sure they are; one whose outlines the refiner would hardly
    move keeps more of its own, see `Canvas.trust_exact_labels`. `hedge` is the share of p in the probabilities that are
    given out, beside those that decide on the labels; label maps, which have none of their own, get no share. An image
    whose short side has fewer than `working_size` pixels is refined enlarged, at most twice;
    with 0 none is, and the first pass over a large image is at its own size, too (`context.py`).
    """

    steps: int = 2
    sampler: Literal["free", "posterior", "single"] = "free"
    mix: float = 1.0
    label_mix: float = 1.0
    tile: int = 768
    overlap: int = 96
    working_size: int = 0
    hedge: float = 0.0

    def validate(self) -> None:
        check_range("inference.steps", self.steps, 1, 4096)
        check_range("inference.mix", self.mix, 0, 1)
        check_range("inference.label_mix", self.label_mix, 0, 1)
        check_range("inference.tile", self.tile, 64, 8192)
        check_range("inference.overlap", self.overlap, 0, self.tile // 2)
        check_range("inference.working_size", self.working_size, 0, 8192)
        check_range("inference.hedge", self.hedge, 0, 1)


@dataclass(frozen=True)
class DDPSConfig:
    """Everything that `config.json` of a refiner holds."""

    format_version: int = FORMAT_VERSION
    name: str = ""
    labels: LabelSpace = field(default_factory=LabelSpace)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    network: LogitsNetwork | FeaturesNetwork = field(default_factory=LogitsNetwork)
    backbone: BackboneConfig | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig)

    def __post_init__(self) -> None:
        check_range("format_version", self.format_version, 1, FORMAT_VERSION)
        for part in (self.labels, self.schedule, self.network, self.inference, self.backbone):
            if part is not None:
                part.validate()
        if isinstance(self.network, FeaturesNetwork):
            self._check_paper(self.network)
            return
        if self.network.classes not in (0, self.labels.num_classes):
            raise InputError(
                f"network.classes 0 or {self.labels.num_classes}, as in labels",
                str(self.network.classes),
                "one number in both",
            )
        if self.backbone is not None or self.labels.void_first:
            raise InputError(
                "no backbone, and labels.void_first false, for a network with conditioning 'logits'",
                "one of them",
                "network.conditioning 'features'",
            )

    def _check_paper(self, network: FeaturesNetwork) -> None:
        check_size(network, self.backbone)
        labels = self.labels
        if self.inference.hedge:
            raise InputError(
                "inference.hedge 0 for a network with conditioning 'features'", str(self.inference.hedge)[:60], "0"
            )
        if labels.num_classes is not None and labels.num_classes + labels.void_first != network.num_classes:
            raise InputError(
                f"network.num_classes {labels.num_classes + labels.void_first}, from labels",
                str(network.num_classes),
                "labels.num_classes without the void class, and labels.void_first where the network has one",
            )
        if self.backbone is not None and self.backbone.embed_dims != network.in_channels:
            raise InputError(
                f"network.in_channels {self.backbone.embed_dims}, as the backbone gives",
                str(network.in_channels)[:100],
                "the same widths in both",
            )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "DDPSConfig":
        """Parses and checks a config file.

        Raises:
            InputError: not JSON, a newer format, an unknown, missing or repeated key, a wrong type, a value out of
                bounds, a network that is too large.
        """
        if text.count("[") + text.count("{") > MAX_BRACKETS:
            raise InputError(f"config.json with up to {MAX_BRACKETS} brackets", "more", "a config.json that ddps wrote")
        try:
            data = json.loads(text, object_pairs_hook=unique)
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError("config.json as JSON", str(error)[:200], "downloading or saving the model again") from None
        if isinstance(data, dict):
            version = data.get("format_version")
            if isinstance(version, int) and not isinstance(version, bool) and version > FORMAT_VERSION:
                raise InputError(
                    f"format_version up to {FORMAT_VERSION}", str(version), "upgrading: pip install -U ddps"
                )
            if version == 1 and not isinstance(version, bool):
                data = _from_version_1(data)
            if data.get("format_version") == 2 and not isinstance(version, bool):
                data = _from_version_2(data)
            if data.get("format_version") == 3 and not isinstance(version, bool):
                data = _from_version_3(data)
        return build(cls, data, "config")


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 added whole models, which version 1 files are not."""
    labels = data.get("labels")
    if isinstance(labels, dict):
        labels = {"void_first": False, **labels}
    # Only what is there: a missing part is named later.
    new = {"labels": labels} if "labels" in data else {}
    if isinstance(inference := data.get("inference"), dict):
        new["inference"] = {"working_size": 0, **inference}
    return {"backbone": None, **data, **new, "format_version": 2}


def _from_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 3 added networks that know their classes by name, which version 2 files do not hold."""
    network = data.get("network")
    if isinstance(network, dict) and network.get("conditioning") == "logits":
        data = {**data, "network": {"classes": 0, **network}}
    return {**data, "format_version": 3}


def _from_version_3(data: dict[str, Any]) -> dict[str, Any]:
    """Version 4 added `inference.hedge`, without which probabilities were given out as they were."""
    if isinstance(inference := data.get("inference"), dict):
        data = {**data, "inference": {"hedge": 0.0, **inference}}
    return {**data, "format_version": 4}


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of which every key is there once: readers differ in which of two they take.

    Raises:
        InputError: a key is there twice.
    """
    data = dict(pairs)
    if len(data) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise InputError("every key of a JSON object once", f"{twice[:80]!r} twice", "removing one of them")
    return data


def check_range(name: str, value: float, low: float, high: float) -> None:
    if (isinstance(value, float) and not math.isfinite(value)) or not low <= value <= high:
        raise InputError(f"{name} in [{low}, {high}]", str(value)[:60], "a value within these bounds")


def build(cls: type[T], data: object, where: str) -> T:
    """Builds a dataclass from parsed JSON; every key must be known and of the annotated type."""
    if not isinstance(data, dict):
        raise InputError(f"{where} as an object", type(data).__name__, "a config.json that ddps wrote")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise InputError(
            f"{where} with keys {', '.join(hints)}", f"unknown {', '.join(map(repr, unknown))[:200]}", "removing them"
        )
    missing = [key for key in hints if key not in data]
    if missing:
        raise InputError(
            f"{where} with keys {', '.join(hints)}", f"no {', '.join(missing)}", "a config.json that ddps wrote"
        )
    return cls(**{key: convert(value, hints[key], f"{where}.{key}") for key, value in data.items()})


def convert(value: object, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if dataclasses.is_dataclass(options[0]):
            chosen = typing.cast(type, options[0]) if len(options) == 1 else _network_class(value, where)
            return build(chosen, value, where)
        return convert(value, options[0], where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is Literal:
        if value not in args or isinstance(value, bool):
            raise InputError(f"{where} to be one of {', '.join(map(repr, args))}", repr(value)[:60], "one of these")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} as a list", type(value).__name__, "a config.json that ddps wrote")
        if args[-1] is Ellipsis:
            return tuple(convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise InputError(f"{where} with {len(args)} entries", str(len(value)), "giving all of them")
        return tuple(convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
    wanted = (int, float) if hint is float else hint
    if not isinstance(value, wanted) or isinstance(value, bool) != (hint is bool):
        raise InputError(f"{where} as {hint.__name__}", f"{type(value).__name__} {value!r}"[:80], "correcting it")
    return value


def _network_class(value: object, where: str) -> type:
    kinds = {"logits": LogitsNetwork, "features": FeaturesNetwork}
    kind = value.get("conditioning") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{where}.conditioning 'logits' or 'features'", repr(kind)[:60], "one of these")
    return kinds[kind]
