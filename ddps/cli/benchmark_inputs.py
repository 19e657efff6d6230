"""What a benchmark measures on, image by image: a segmentor's prediction or a rough mask, and the true mask."""

import zlib
from typing import get_args

import numpy as np

from ..benchmark import Case
from ..errors import InputError
from ..inputs import load_image
from ..predictions import AnyKind, load_prediction, read_prediction_file
from ..rough import Rough, roughen
from .benchmark_sets import DataSet, SplitFiles
from .pairs import name_item

ROUGH: tuple[Rough, ...] = get_args(Rough)


def read_case(data: DataSet, files: SplitFiles, input_name: str, stem: str, kind: AnyKind) -> Case:
    """One image of one input.

    Args:
        data: the set.
        files: of one of its splits.
        input_name: a segmentor of the split, or a kind of rough masks.
        stem: which image.
        kind: what predictions are, where their file does not say.

    Raises:
        InputError: files that cannot be read or do not fit together; the message names the image.
    """
    try:
        return _read(data, files, input_name, stem, kind)
    except (InputError, OSError) as error:
        raise name_item(error, f"{data.name}, {input_name}, {stem}") from None


def _read(data: DataSet, files: SplitFiles, input_name: str, stem: str, kind: AnyKind) -> Case:
    space = data.space
    image = load_image(files.images[stem])
    size = (int(image.shape[1]), int(image.shape[2]))
    truth = read_prediction_file(files.masks[stem])[0].astype(np.int64)
    if truth.shape != size:
        raise InputError(f"a mask of the image's size {size}", str(truth.shape), "masks at their images' size")
    found: AnyKind
    if input_name in files.predictions:
        values, found = read_prediction_file(files.predictions[input_name][stem])
    else:
        rough = next(kind for kind in ROUGH if kind == input_name)
        # A seed of the stem: an image's rough mask does not depend on which others are measured.
        values, found = roughen(truth, rough, space.ignore_index, zlib.crc32(stem.encode())), "labels"
    chosen = kind if found == "auto" else found
    prediction = load_prediction(values, size, chosen, space.ignore_index, space.num_classes)
    return Case(stem, image, prediction, truth)
