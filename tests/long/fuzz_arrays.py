"""Images, predictions and keywords of `DDPSRefiner.refine` as careless callers hold them, and what must hold of any.

Each call either gives an answer that is whole, or an InputError; and what was given stays as it was.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddps import DDPSRefiner, Refinement
from ddps.errors import InputError
from ddps.stacks import MaskStack, refine_masks

from .fuzz_readers import check_refusal

HEIGHT, WIDTH = 24, 40
KINDS = ("predictions", "images", "keywords", "stacks", "features")
IMAGE_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16",
               "I;16B", "F")  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, "x", b"x", [], (), {}, object(), float("nan"), 2**70, -(2**70), 10**12, np.int64(3),
    np.float32(0.5), torch.tensor(2), np.zeros(2), complex(1, 1), "auto", "logits", "probs", "labels",
)  # fmt: skip
KEYWORDS = ("kind", "preset", "steps", "sampler", "seed", "num_samples", "guidance_scale", "tile", "ignore_index",
            "num_classes", "after", "early_exit", "features")  # fmt: skip


def blocks(rng: np.random.Generator, channels: int, height: int, width: int) -> np.ndarray:
    """Logits with regions, as a segmentor's."""
    coarse = rng.normal(size=(channels, 2 + height // 8, 2 + width // 8))
    fine = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    return (4 * fine + rng.normal(size=fine.shape)).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).softmax(0).numpy()


def spoilt_values(rng: Random, values: np.ndarray) -> np.ndarray:
    """A few or all values become what no segmentor means."""
    values = values.astype(rng.choice((np.float16, np.float32, np.float64)))
    spots = rng.choice((1, 3, values.size))
    hostile = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e300, 0.0, -0.0, 7.0, 1e-45, 65504.0))
    with np.errstate(over="ignore"):
        values.reshape(-1)[:spots] = hostile
    return values


def other_type(rng: Random, values: np.ndarray) -> np.ndarray:
    names = ("float16", "float64", "longdouble", "int8", "uint8", "int16", "uint16", "int64", "uint64", "bool", ">f4",
             "complex64", "object", "S4", "U4", "datetime64[s]", "V4")  # fmt: skip
    with np.errstate(all="ignore"):
        values = np.clip(values, 0, 250) if rng.random() < 0.5 else values
        return (
            values.astype(rng.choice(names)) if (name := rng.choice(names)) != "V4" else values.view("V4").astype(name)
        )


def other_shape(rng: Random, values: np.ndarray) -> np.ndarray:
    shapes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda v: v[0], lambda v: v[None], lambda v: v[None, None], lambda v: v.reshape(-1), lambda v: v[:0],
        lambda v: v[:, :0], lambda v: v[:, :, :0], lambda v: v[:1], lambda v: v[:2, :1, :1], lambda v: v[:, :1],
        lambda v: v.transpose(1, 2, 0), lambda v: v[..., None], lambda v: np.array(v[0, 0, 0]),
        lambda v: np.tile(v, (200, 1, 1))[:, :3, :3],
    )  # fmt: skip
    return rng.choice(shapes)(values)


def other_layout(rng: Random, values: np.ndarray) -> np.ndarray:
    layouts: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        np.asfortranarray, lambda v: v[::-1, ::-1, ::-1], lambda v: v[:, ::2, ::-3], lambda v: v.T, np.ma.masked_array,
        lambda v: np.broadcast_to(v[:, :1, :1], v.shape), lambda v: np.repeat(v, 2, 2)[:, :, ::2],
    )  # fmt: skip
    values = rng.choice(layouts)(values)
    values.flags.writeable = False
    return values


def label_map(rng: Random, values: np.ndarray) -> Any:
    ids = values.argmax(0).astype(
        rng.choice(("uint8", "int64", "int8", "uint64", "int32", "float32", "bool", "object"))
    )
    if ids.dtype.kind in "iuf":
        largest = np.iinfo(ids.dtype).max if ids.dtype.kind in "iu" else 1e30
        least = np.iinfo(ids.dtype).min if ids.dtype.kind in "iu" else -1e30
        ids[: rng.choice((1, HEIGHT))] = rng.choice((0, 1, 100, 127, largest, least))
    if ids.dtype == np.uint8 and rng.random() < 0.5:
        ids[:, : rng.choice((1, WIDTH))] = 255
        return Image.fromarray(ids) if rng.random() < 0.5 else ids
    return ids


def as_tensor(rng: Random, values: np.ndarray) -> Any:
    """A torch tensor of an odd kind."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    kinds: tuple[Callable[[torch.Tensor], Any], ...] = (
        lambda t: t.requires_grad_(), lambda t: t.bfloat16(), lambda t: t.to(torch.float8_e4m3fn),
        lambda t: t.to_sparse(),
        lambda t: t.to("meta"), lambda t: t + 0j, lambda t: t.to(getattr(torch, "uint16", torch.int16)),
        lambda t: t.abs().to(torch.uint8),
        lambda t: t.transpose(1, 2), lambda t: t.expand(2, *t.shape), lambda t: t[:, :0], lambda t: t[0].long(),
        lambda t: t[:1], lambda t: t.flip(0).neg(),
        lambda t: torch.nested.nested_tensor([t[0], t[0, :2]]), lambda t: t.argmax(0), lambda t: t.half(),
    )  # fmt: skip
    return rng.choice(kinds)(tensor)


def no_array(rng: Random, values: np.ndarray) -> Any:
    odd = (*ODD, values.tolist(), [values], (values, values), {"logits": values}, {"out": torch.from_numpy(values)},
           Image.new(rng.choice(IMAGE_MODES), (WIDTH, HEIGHT)), "none.npy", np.void(b"abc"),
           iter([values]))  # fmt: skip
    return rng.choice(odd)


SPOILERS: tuple[Callable[[Random, np.ndarray], Any], ...] = (
    spoilt_values, spoilt_values, other_type, other_type, other_shape, other_layout, label_map, label_map, as_tensor,
    no_array,
)  # fmt: skip


def prediction(rng: Random) -> Any:
    values = blocks(np.random.default_rng(rng.randrange(100)), rng.choice((1, 2, 3, 7)), HEIGHT, WIDTH)
    values = softmax(values) if rng.random() < 0.4 else values
    spoiler = rng.choice(SPOILERS)
    if spoiler in (other_shape, other_layout, spoilt_values) and rng.random() < 0.2:
        values = spoilt_values(rng, values)
    return spoiler(rng, values)


def image(rng: Random) -> Any:
    values = np.random.default_rng(rng.randrange(100)).random((3, HEIGHT, WIDTH)).astype(np.float32)
    if rng.random() < 0.3:
        return Image.new(rng.choice(IMAGE_MODES), rng.choice(((WIDTH, HEIGHT), (1, 9), (9, 1), (0, 4))))
    if rng.random() < 0.3:
        size = rng.choice(((1, 1), (1, 50), (50, 1), (3, 3)))
        return (255 * np.random.default_rng(0).random((*size, rng.choice((1, 3, 4))))).astype(np.uint8)
    spoilt = rng.choice((spoilt_values, other_type, other_shape, other_layout, as_tensor, no_array))(rng, values)
    turn = isinstance(spoilt, np.ndarray) and spoilt.ndim == 3 and rng.random() < 0.7
    return spoilt.transpose(1, 2, 0) if turn else spoilt


def features(rng: Random) -> Any:
    """What a model conditioned on features of 8 and 16 channels at strides 4 and 8 is given in their place."""
    draw = np.random.default_rng(rng.randrange(100))
    maps = [draw.normal(size=(1, 8 * s, HEIGHT // (4 * s), WIDTH // (4 * s))).astype(np.float32) for s in (1, 2)]
    match rng.randrange(6):
        case 0:
            return rng.choice((*ODD, [], [[]], [torch.from_numpy(maps[0])], maps, torch.from_numpy(maps[0])))
        case 1:
            maps[rng.randrange(2)] = spoilt_values(rng, maps[rng.randrange(2)])
        case 2:
            maps.reverse()
        case 3:
            index = rng.randrange(2)
            maps[index] = other_shape(rng, maps[index][0])
        case 4:
            return [as_tensor(rng, one[0]) for one in maps]
        case _:
            return [rng.choice((torch.from_numpy(one), None, one, "x", torch.from_numpy(one).long())) for one in maps]
    return [torch.from_numpy(np.array(one, dtype=one.dtype)) for one in maps]


def stack(rng: Random) -> Any:
    """Masks for `refine_masks`."""
    values = blocks(np.random.default_rng(rng.randrange(100)), rng.choice((1, 2, 5)), HEIGHT, WIDTH)
    whole = values if rng.random() < 0.5 else (values > 0).astype(rng.choice(("bool", "uint8", "float32", "int64")))
    if rng.random() < 0.3:
        planes: list[Any] = [spoilt_values(rng, one) if rng.random() < 0.2 else one for one in whole]
        planes[0] = rng.choice(
            (planes[0], planes[0][:3], torch.from_numpy(planes[0].copy()), None, "x", 3, planes[0][None])
        )
        return planes
    return rng.choice(SPOILERS)(rng, whole)


def keywords(rng: Random) -> dict[str, Any]:
    return {name: rng.choice(ODD) for name in rng.sample(KEYWORDS, rng.choice((1, 1, 2)))}


def call(kind: str, index: int) -> dict[str, Any]:
    """Arguments number `index` of one of `KINDS`, always the same."""
    rng = Random(f"{kind} {index}")
    arguments: dict[str, Any] = {
        "image": np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "prediction": blocks(np.random.default_rng(index), 3, HEIGHT, WIDTH),
    }
    if kind == "features":
        arguments |= {"prediction": None, "features": features(rng)}
    elif kind == "stacks":
        arguments |= {"prediction": stack(rng), "stack": True}
        if rng.random() < 0.5:
            arguments["kind"] = rng.choice(("auto", "masks", "logits", "probs", "labels", None))
    elif kind == "predictions":
        arguments["prediction"] = prediction(rng)
        if rng.random() < 0.5:
            arguments["kind"] = rng.choice(("auto", "logits", "probs", "labels"))
        if rng.random() < 0.3:
            arguments["num_classes"] = rng.choice((1, 2, 3, 5, 7))
        if rng.random() < 0.3:
            arguments["ignore_index"] = rng.choice((-1, 0, 2, 255, 65535))
    elif kind == "images":
        arguments["image"] = image(rng)
    else:
        label_maps = rng.random() < 0.5
        arguments["prediction"] = arguments["prediction"].argmax(0) if label_maps else arguments["prediction"]
        arguments |= keywords(rng)
    return arguments


def accepts(refiner: DDPSRefiner, arguments: dict[str, Any]) -> bool:
    """Whether this call gave an answer; False for a refusal that says what it should."""
    before = {name: _contents(arguments[name]) for name in ("image", "prediction")}
    try:
        answer = _run(refiner, arguments)
    except InputError as error:
        check_refusal(error)
        return False
    finally:
        assert before == {name: _contents(arguments[name]) for name in before}, "an input was changed"
    for one in answer if isinstance(answer, list) else [answer]:
        _check_stack(one) if isinstance(one, MaskStack) else _check_answer(one, arguments)
    return True


def _run(refiner: DDPSRefiner, arguments: dict[str, Any]) -> Any:
    given = dict(arguments)
    if given.pop("stack", False):
        return refine_masks(refiner, given.pop("image"), given.pop("prediction"), **given)
    return refiner.refine(**given)


def _check_stack(answer: MaskStack) -> None:
    masks, unsure = np.asarray(answer.masks), np.asarray(answer.uncertainty)
    assert masks.dtype == np.bool_ and masks.shape[1:] == (HEIGHT, WIDTH)
    assert np.isfinite(unsure).all() and len(unsure) == len(masks)


def _contents(value: object) -> object:
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return value.tobytes()
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu":
        return None if value.is_quantized or value.is_nested else value.detach().reshape(-1).view(torch.uint8).tolist()
    return value.tobytes() if isinstance(value, Image.Image) else None


def _check_answer(answer: Refinement, arguments: dict[str, Any]) -> None:
    found, unsure = np.asarray(answer.labels), np.asarray(answer.uncertainty)
    assert found.ndim == 2 and found.shape == unsure.shape == np.asarray(answer.changed).shape
    assert np.isfinite(unsure).all() and unsure.min() >= 0 and unsure.max() <= 1
    void = int(arguments.get("ignore_index", 255))
    assert answer.probs is not None
    probs = np.asarray(answer.probs)
    assert probs.shape[1:] == found.shape and np.isfinite(probs).all() and probs.min() >= 0
    assert np.abs(probs.sum(0) - 1).max() < 1e-3
    assert (((found >= 0) & (found < len(probs))) | (found == void)).all()
