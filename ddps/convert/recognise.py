"""What a checkpoint is, told by the names and shapes of its tensors: network, backbone, schedule, label space."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import BackboneConfig, DDPSConfig, FeaturesNetwork, InferenceConfig, LabelSpace, ScheduleConfig
from ..diffusion.schedules import make_schedule
from ..errors import InputError
from ..label_spaces import ADE20K_NAMES, ADE20K_PALETTE, CITYSCAPES_NAMES, CITYSCAPES_PALETTE
from ..segmentors.mit import config_of

HEAD, BACKBONE = "decode_head.", "backbone."
OURS = re.compile(
    r"backbone\.layers\.\d+\..+"
    r"|decode_head\.(convs\.\d+|fusion_conv)\.(conv|bn)\.\w+"
    r"|decode_head\.unet\..+"
    r"|decode_head\.(embed\.weight|conv_seg_new\.(weight|bias)|log_(cumprod_)?[ab]t)"
)
"""Every name that a checkpoint of DDPS with a SegFormer may hold."""
# The released tables were computed in float32 and kept as logs.
TABLE_TOLERANCE = 1e-4
PAPER_STEPS = 20

Void = Literal["auto", "first", "none"]
_KNOWN_SPACES = ((ADE20K_NAMES, ADE20K_PALETTE), (CITYSCAPES_NAMES, CITYSCAPES_PALETTE))


def check_names(names: Sequence[str]) -> None:
    """Refuses what is no checkpoint of DDPS, or holds what this version does not know.

    Raises:
        InputError: lists the unknown names.
    """
    unknown = sorted(name for name in names if not OURS.fullmatch(name))
    if not any(name.startswith("decode_head.unet.") for name in names):
        got = f"another method's: {listed(sorted(names), 3)}"
        raise InputError("a checkpoint of DDPS, with decode_head.unet.*", got, "a checkpoint of DDPS")
    if unknown:
        raise InputError(
            "a checkpoint of DDPS with a SegFormer, whose names are known",
            f"{len(unknown)} unknown names: {listed(unknown, 12)}",
            "a SegFormer checkpoint; other segmentors' layouts are not documented, and are not guessed",
        )


def recognise(tensors: Mapping[str, Tensor], meta: Mapping[Any, Any], name: str, void: Void) -> DDPSConfig:
    """The config of a checkpoint.

    Args:
        tensors: of the weights, under the checkpoint's names.
        meta: mmcv's notes; `CLASSES` and `PALETTE` are used where they fit.
        name: what to call the model.
        void: whether class 0 is void; "auto" tells ADE20K's 151 and Cityscapes' 20 by number and names.

    Raises:
        InputError: tensors are missing, or no network has such shapes.
    """
    shapes = {key: value.shape for key, value in tensors.items()}
    head = {key.removeprefix(HEAD): shape for key, shape in shapes.items() if key.startswith(HEAD)}
    body = {key.removeprefix(BACKBONE): shape for key, shape in shapes.items() if key.startswith(BACKBONE)}
    try:
        network = _network(head)
        classes = network.num_classes
        kernel: Literal["uniform", "absorbing"] = "absorbing" if head["embed.weight"][0] == classes + 1 else "uniform"
        schedule = _schedule(tensors[f"{HEAD}log_cumprod_at"], kernel)
    except KeyError as error:
        raise InputError(
            "a checkpoint of DDPS with a SegFormer", f"no tensor {error.args[0]!r}", "a whole checkpoint"
        ) from None
    except (IndexError, ZeroDivisionError):
        raise InputError(
            "a checkpoint of DDPS with a SegFormer", "tensors of other shapes", "a checkpoint of DDPS"
        ) from None
    backbone: BackboneConfig | None = config_of(body) if body else None
    return DDPSConfig(
        name=name,
        labels=_label_space(classes, meta, void),
        schedule=schedule,
        network=network,
        backbone=backbone,
        inference=InferenceConfig(steps=min(PAPER_STEPS, schedule.num_steps)),
    )


def listed(names: Sequence[str], shown: int) -> str:
    """Names in one line, cut: they may be a stranger's."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(repr(name[:100]) for name in names[:shown]) + more if names else "nothing"


def _network(head: Mapping[str, torch.Size]) -> FeaturesNetwork:
    levels = _count(head, "convs")
    dim = head["unet.init_conv.weight"][0]
    return FeaturesNetwork(
        in_channels=tuple(head[f"convs.{level}.conv.weight"][1] for level in range(max(levels, 1))),
        channels=head["convs.0.conv.weight"][0],
        embed_dim=head["embed.weight"][1],
        dim=dim,
        dim_mults=tuple(
            head[f"unet.downs.{level}.3.weight"][0] // dim for level in range(_count(head, "unet.downs") or 1)
        ),
        out_dim=head["unet.final_conv.weight"][0],
        num_classes=head["conv_seg_new.weight"][0],
    )


def _count(names: Mapping[str, object], part: str) -> int:
    return len({name.removeprefix(part + ".").split(".")[0] for name in names if name.startswith(part + ".")})


def _schedule(log_alpha_bar: Tensor, kernel: Literal["uniform", "absorbing"]) -> ScheduleConfig:
    steps = log_alpha_bar.numel() - 1
    if log_alpha_bar.ndim == 1 and steps >= 2:
        table = log_alpha_bar.double().exp()
        kinds: tuple[Literal["linear", "cosine"], ...] = ("linear", "cosine")
        for kind in kinds:
            if torch.allclose(table, make_schedule(kind, steps).alpha_bar, rtol=0, atol=TABLE_TOLERANCE):
                return ScheduleConfig(kind, steps, kernel)
    raise InputError(
        "a linear or cosine noise schedule in decode_head.log_cumprod_at",
        f"another table of shape {tuple(log_alpha_bar.shape)}",
        "a checkpoint of the paper's schedules",
    )


def _label_space(classes: int, meta: Mapping[Any, Any], void: Void) -> LabelSpace:
    names = _names(meta)
    for known, palette in _KNOWN_SPACES:
        first = classes == len(known) + 1 and void != "none"
        if not (first or (classes == len(known) and void != "first")):
            continue
        # Another data set may have as many classes; then its names say so.
        if not names or _alike(names, known):
            return LabelSpace(len(known), known, palette, void_first=first)
    first = void == "first"
    count = classes - first
    if names and len(names) == count + 1 and first:
        names = names[1:]
    if names and len(names) != count:
        raise InputError(
            f"as many names in the checkpoint's meta as it has classes ({classes})",
            f"{len(names)}",
            "--void first if class 0 is void" if len(names) == classes - 1 else "a checkpoint whose names fit",
        )
    colours = _palette(meta)
    if len(colours) == count + 1 and first:
        colours = colours[1:]
    return LabelSpace(count, names, colours if len(colours) == count else (), void_first=first)


def _names(meta: Mapping[Any, Any]) -> tuple[str, ...]:
    names = meta.get("CLASSES")
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


def _palette(meta: Mapping[Any, Any]) -> tuple[tuple[int, int, int], ...]:
    palette = meta.get("PALETTE")
    if not isinstance(palette, list | tuple):
        return ()
    colours = []
    for colour in palette:
        whole = isinstance(colour, list | tuple) and all(type(value) is int and 0 <= value <= 255 for value in colour)
        if not whole or len(colour) != 3:
            return ()
        colours.append((colour[0], colour[1], colour[2]))
    return tuple(colours)


def _alike(names: Sequence[str], known: Sequence[str]) -> bool:
    """Whether at least half of the known names occur: versions of a data set spell some of them in their own way."""
    given = {name.strip().lower() for name in names}
    return 2 * len(given & set(known)) >= len(known)
