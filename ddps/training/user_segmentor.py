"""A user's segmentor, named as `module:callable`: what it predicts on images that it did not train on.

A segmentor is too good on the images that it was trained on: a refiner that learns from such predictions learns that
there is little to do. So a trainable one is trained on all folds of the training images but one, and predicts that one.

- `fit(images, masks) -> predict`: trains on lists of paths, from scratch at every call, and returns a `predict`.
- `predict(image) -> values`: (H, W, 3) uint8 RGB to (K, h, w) float logits or probabilities at any resolution, or an
  (H, W) label map.
"""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..atomic import atomic_write
from ..errors import InputError, one_line
from ..inputs import load_image
from ..predictions import AnyKind, load_prediction
from .journal import Journal
from .sets import DataSet

Predict: TypeAlias = Callable[[np.ndarray], Any]
Fit: TypeAlias = Callable[[list[Path], list[Path]], Predict]
ABOUT_FILE = "predictions.json"


def find_callable(name: str) -> Callable[..., Any]:
    """Imports `module:callable`; modules of the working directory are found, too.

    Raises:
        InputError: another form, no such module, or nothing in it that can be called.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError("a segmentor as module:callable", repr(name)[:80], "my_segmentor:fit")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever a user's module raises
        raise InputError(f"a module {module} to import", one_line(error), f"python -c 'import {module}'") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise InputError(f"a callable {attribute} in {module}", "none", "its name in that module")
    return found


def out_of_fold(
    fit: Fit, name: str, train: DataSet, others: Sequence[tuple[str, DataSet]], folds: int, out: Path, journal: Journal
) -> None:
    """Writes `out/{train,...}/<stem>.npz` with the key `probs`; what is there from a stopped run stays.

    Every training image is predicted by a segmentor that was trained on the other folds; the last of them predicts the
    other splits.

    Args:
        fit: the user's.
        name: of it, which a later run is held against.
        train: the training images.
        others: name and images of splits that no fold is trained on.
        folds: at least 2; neighbours in the order of the names are in one fold, as frames of a video are alike.
        out: folder of the predictions.
        journal: of the run.

    Raises:
        InputError: fewer images than folds, predictions of another segmentor in `out`, or a segmentor that fails.
    """
    if not 2 <= folds <= len(train.pairs):
        raise InputError(f"folds from 2 to the number of images, {len(train.pairs)}", str(folds), "--folds 4")
    _keep_about(out, {"segmentor": name, "folds": folds, "images": len(train.pairs)})
    bounds = [round(len(train.pairs) * part / folds) for part in range(folds + 1)]
    for fold in range(folds):
        held_out = train.pairs[bounds[fold] : bounds[fold + 1]]
        wanted = [("train", held_out)]
        if fold == folds - 1:
            wanted += [(split, data.pairs) for split, data in others]
        missing = [(split, pair) for split, pairs in wanted for pair in pairs if not _file(out, split, pair).is_file()]
        if not missing:
            continue
        rest = [*train.pairs[: bounds[fold]], *train.pairs[bounds[fold + 1] :]]
        journal.say(f"fold {fold + 1} of {folds}: training on {len(rest)} images, predicting {len(missing)}")
        images, masks = [image for image, _ in rest], [mask for _, mask in rest]
        predict = _call(functools.partial(fit, images, masks), f"{name}(images, masks)")
        for split, pair in missing:
            _write(predict, name, pair[0], train, _file(out, split, pair))


def ready_made(predict: Predict, name: str, splits: Sequence[tuple[str, DataSet]], out: Path, journal: Journal) -> None:
    """Writes what a segmentor that was trained elsewhere predicts, as `out_of_fold` does."""
    _keep_about(out, {"predictor": name, "images": len(splits[0][1].pairs)})
    for split, data in splits:
        missing = [pair for pair in data.pairs if not _file(out, split, pair).is_file()]
        if missing:
            journal.say(f"predicting {len(missing)} images of {split}")
        for pair in missing:
            _write(predict, name, pair[0], data, _file(out, split, pair))


def _file(out: Path, split: str, pair: tuple[Path, Path]) -> Path:
    return out / split / f"{pair[0].stem}.npz"


def _keep_about(out: Path, about: dict[str, object]) -> None:
    path, text = out / ABOUT_FILE, json.dumps(about) + "\n"
    if path.is_file():
        if path.read_text() != text:
            raise InputError(f"predictions of {about} in {out}", path.read_text().strip()[:160], "another --out folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode())


def _write(predict: Any, name: str, image: Path, data: DataSet, target: Path) -> None:
    pixels = (load_image(image) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    values = np.asarray(_call(functools.partial(predict, pixels), f"{name} on {image.name}"))
    native = (int(values.shape[-2]), int(values.shape[-1])) if values.ndim >= 2 else (1, 1)
    kind: AnyKind = "labels" if values.ndim == 2 else "auto"
    try:
        known = load_prediction(values, native, kind, data.ignore_index, data.num_classes)
    except InputError as error:
        raise InputError(f"{name} to give for {image.name} {error.expected}", error.got, error.hint) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as file:
        if known.kind == "labels":
            np.savez_compressed(file, labels=known.native.numpy())
        else:
            np.savez_compressed(file, probs=known.probs().numpy().astype(np.float16))


def _call(work: Callable[[], Any], what: str) -> Any:
    try:
        return work()
    except Exception as error:  # whatever a user's code raises
        got = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{what} to work", got, "calling it by itself") from error
