"""The frozen segmentor that training looks through: an image to feature maps, and to logits where it has a head."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...config import BackboneConfig, DDPSConfig, FeaturesNetwork, LabelSpace
from ...errors import InputError, one_line
from ...hub import CONFIG_FILE, load_weights, read_config
from ...refiner import build_network
from ...segmentors import MixVisionTransformer, build_backbone

FUSION = ("convs.", "fusion_conv.")
"""Where the denoiser's names of the fusion begin."""
TRANSFORMERS_ONLY = "a folder that ddps saved, or a SegFormer that transformers saved (config.json, model.safetensors)"


@dataclass(frozen=True, eq=False)
class Seen:
    """What a segmentor makes of a batch.

    Args:
        features: (B, C_j, h_j, w_j), finest (stride 4) first.
        logits: (B, K, h, w) over the users' classes, or None.
    """

    features: list[Tensor]
    logits: Tensor | None


class FrozenSegmentor(nn.Module, ABC):
    """Base of what `train_recipe` takes: subclass it to train on the features of any other network.

    A subclass implements `forward(image (B, 3, H, W) in [0, 1]) -> Seen`. It is put in evaluation mode, called without
    gradients, and never changed.
    """

    has_logits: bool = False
    """Whether `Seen.logits` is given."""

    def backbone_weights(self) -> dict[str, Tensor]:
        """What goes into the trained model as `backbone.*`; nothing for networks that our format does not know."""
        return {}

    def fusion_weights(self) -> dict[str, Tensor]:
        """A trained fusion under the denoiser's names, or nothing."""
        return {}

    @abstractmethod
    def forward(self, image: Tensor) -> Seen:
        """What the segmentor makes of (B, 3, H, W) images in [0, 1], RGB."""


class SegFormer(FrozenSegmentor):
    """SegFormer's encoder, with its head from transformers or the fusion of a ddps model.

    Args:
        backbone: the encoder, which normalises images itself.
        head: feature maps to logits, or None.
        fusion: the denoiser's `convs.*` and `fusion_conv.*`, trained; empty for none.
    """

    def __init__(
        self,
        backbone: MixVisionTransformer,
        head: nn.Module | None = None,
        fusion: dict[str, Tensor] | None = None,
    ):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.has_logits = head is not None
        self._fusion = fusion or {}

    def backbone_weights(self) -> dict[str, Tensor]:
        return dict(self.backbone.state_dict())

    def fusion_weights(self) -> dict[str, Tensor]:
        return self._fusion

    def forward(self, image: Tensor) -> Seen:
        features = self.backbone(self.backbone.normalise(image))
        return Seen(features, None if self.head is None else self.head(features))


def read_segmentor(folder: Path, model: DDPSConfig) -> SegFormer:
    """Reads a frozen segmentor.

    Args:
        folder: one that ddps saved, with a backbone: its encoder is taken, and its fusion if it has the sizes of
            `model`; or a SegFormer that transformers saved: its encoder, and its head, which gives the segmentor's own
            prediction. Transformers' head has another form than the denoiser's fusion, which is then trained.
        model: whose backbone the encoder must be.

    Raises:
        InputError: no such folder, something else in it, or an encoder of other sizes.
    """
    if model.backbone is None:
        raise InputError("a recipe with model.backbone", "none", "a recipe of the package, or handing over a segmentor")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(TRANSFORMERS_ONLY, f"{str(folder)!r}, without a {CONFIG_FILE}", "the path of such a folder")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} as JSON", one_line(error), "saving or downloading the model again") from None
    if isinstance(about, dict) and "model_type" in about:
        found = _from_transformers(folder, about, model.backbone, model.labels)
    else:
        found = _from_ddps(folder, model)
    return found.eval().requires_grad_(False)


def _from_ddps(folder: Path, model: DDPSConfig) -> SegFormer:
    config = read_config(folder / CONFIG_FILE)
    assert model.backbone is not None
    if config.backbone is None:
        raise InputError(TRANSFORMERS_ONLY, f"{str(folder)!r}, a model without a backbone", "a whole model")
    _check_sizes(folder, config.backbone, model.backbone)
    config, weights, _ = load_weights(folder, build_network)
    backbone = build_backbone(model.backbone)
    own = {name.removeprefix("backbone."): v for name, v in weights.items() if name.startswith("backbone.")}
    backbone.load_state_dict(own)
    theirs, ours = config.network, model.network
    assert isinstance(theirs, FeaturesNetwork) and isinstance(ours, FeaturesNetwork)
    fits = (theirs.in_channels, theirs.channels) == (ours.in_channels, ours.channels)
    fusion = {name: v for name, v in weights.items() if fits and name.startswith(FUSION)}
    return SegFormer(backbone, fusion=fusion)


def _from_transformers(folder: Path, about: dict[str, object], wanted: BackboneConfig, labels: LabelSpace) -> SegFormer:
    if about.get("model_type") != "segformer":
        raise InputError(TRANSFORMERS_ONLY, f"{str(folder)!r}, a {about.get('model_type')!r}"[:120], "a SegFormer")
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{str(folder / 'model.safetensors')!r}", "no such file", "save_pretrained of transformers")
    backbone = build_backbone(wanted)
    from transformers import SegformerForSemanticSegmentation, logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        answer: Any = SegformerForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises nearly anything
        raise InputError(f"a SegFormer in {str(folder)!r}", one_line(error), "saving or downloading it again") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    loaded, report = answer
    missing = sorted(report["missing_keys"])
    if any(not name.startswith("decode_head.") for name in missing):
        raise InputError(f"all weights of a SegFormer in {str(folder)!r}", f"no {missing[0]}", "saving it again")
    config = loaded.config
    found = BackboneConfig(
        embed_dims=tuple(config.hidden_sizes),
        depths=tuple(config.depths),
        num_heads=tuple(config.num_attention_heads),
        sr_ratios=tuple(config.sr_ratios),
        patch_sizes=tuple(config.patch_sizes),
        strides=tuple(config.strides),
        mlp_ratio=int(config.mlp_ratios[0]),
        mean=wanted.mean,
        std=wanted.std,
    )
    _check_sizes(folder, found, wanted)
    backbone.encoder.load_state_dict(loaded.segformer.state_dict())
    # A head of another label space, or an untrained one, says nothing about these classes.
    head = loaded.decode_head if not missing and config.num_labels == labels.num_classes else None
    return SegFormer(backbone, head)


def _check_sizes(folder: Path, found: BackboneConfig, wanted: BackboneConfig) -> None:
    if found != wanted:
        for name in ("embed_dims", "depths", "num_heads", "sr_ratios", "patch_sizes", "strides", "mean", "std"):
            if getattr(found, name) != getattr(wanted, name):
                raise InputError(
                    f"a backbone with {name} {getattr(wanted, name)}, as the recipe says",
                    f"{getattr(found, name)} in {str(folder)!r}",
                    "the recipe of this backbone's size",
                )
        raise InputError("the backbone that the recipe describes", f"another one in {str(folder)!r}", "its own recipe")
