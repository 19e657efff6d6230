"""What people use today to sharpen masks: DenseCRF and guided filtering. Both need packages beyond the core."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .benchmark import Method
from .errors import InputError
from .predictions import Prediction
from .rough import import_cv2

LEAST = 1e-5
"""Probabilities below this count as this in the CRF's unary energy."""


@dataclass(frozen=True)
class CrfPreset:
    """Parameters of the CRF's bilateral (appearance) term.

    Attributes:
        sxy: how far pixels see each other, in pixels.
        srgb: how alike their colours must be, in levels of 0 to 255.
        compat: weight of the term.
    """

    sxy: int
    srgb: int
    compat: int

    def __str__(self) -> str:
        return f"{self.sxy}-{self.srgb}-{self.compat}"


CRF_PRESETS = (CrfPreset(50, 5, 4), CrfPreset(20, 8, 4), CrfPreset(30, 10, 8))
CRF_SMOOTHNESS = (3, 3)
"""sxy in pixels and weight of the smoothness term, as in the authors' examples."""
CRF_ITERATIONS = 5
GUIDED_RADIUS, GUIDED_EPS = 4, 1e-3


def dense_crf(preset: CrfPreset) -> Method:
    """Fully connected CRF with Gaussian edge potentials, mean-field inference (Krähenbühl and Koltun, NeurIPS 2011).

    Args:
        preset: of the bilateral term.

    Returns:
        (image (3, H, W) in [0, 1], prediction) → (H, W) int64 labels.

    Raises:
        InputError: pydensecrf is not installed.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        hint = "pip install pydensecrf2, or --methods without densecrf"
        raise InputError("the package pydensecrf for DenseCRF", "an environment without", hint) from None

    def run(image: Tensor, prediction: Prediction) -> Tensor:
        probs, classes = _candidates(prediction)
        height, width = prediction.size
        if len(classes) == 1:
            return _finish(probs, classes, prediction)
        crf = DenseCRF2D(width, height, len(classes))
        unary = -np.log(np.clip(probs, LEAST, 1.0))
        crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(classes), -1)))
        sxy, weight = CRF_SMOOTHNESS
        crf.addPairwiseGaussian(sxy=sxy, compat=weight)
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).mul(255).round().byte().numpy())
        crf.addPairwiseBilateral(sxy=preset.sxy, srgb=preset.srgb, rgbim=pixels, compat=preset.compat)
        answer = np.array(crf.inference(CRF_ITERATIONS), dtype=np.float32)
        return _finish(answer.reshape(probs.shape), classes, prediction)

    return run


def bilinear(image: Tensor, prediction: Prediction) -> Tensor:
    """Every class's map upsampled bilinearly, also a label map's, whose blocks become smooth outlines.

    Args:
        image: not looked at.
        prediction: for logits and probabilities this is the segmentor alone.

    Returns:
        (H, W) int64 labels.
    """
    if prediction.kind != "labels":
        return prediction.argmax()
    classes = prediction.present.nonzero()[:, 0]
    one_hot = (prediction.native[None] == classes[:, None, None]).float()
    smooth = F.interpolate(one_hot[None], prediction.size, mode="bilinear", align_corners=False)[0]
    return classes[smooth.argmax(0)].masked_fill(prediction.void, prediction.ignore_index)


def guided_filter(radius: int = GUIDED_RADIUS, eps: float = GUIDED_EPS) -> Method:
    """Every class's probabilities filtered under the colour image's guidance (He, Sun and Tang, ECCV 2010).

    Args:
        radius: of the filter's window, in pixels.
        eps: regularisation, for colours in [0, 1].

    Returns:
        (image (3, H, W) in [0, 1], prediction) → (H, W) int64 labels.

    Raises:
        InputError: OpenCV's contributed modules are not installed.
    """
    cv2 = import_cv2("--methods guided")

    def run(image: Tensor, prediction: Prediction) -> Tensor:
        # Seconds are compared: every method gets as many threads as torch has.
        cv2.setNumThreads(torch.get_num_threads())
        # Colours up to 255: for small eps OpenCV gives up, and only blurs, where the colours' covariance has a
        # determinant below 1e-6, which in [0, 1] is nearly everywhere. The filter itself does not depend on the scale.
        guide = np.ascontiguousarray(image.permute(1, 2, 0).mul(255).numpy())
        chosen = cv2.ximgproc.createGuidedFilter(guide, radius, eps * 255**2)
        probs, classes = _candidates(prediction)
        filtered = np.stack([chosen.filter(plane) for plane in probs])
        return _finish(filtered, classes, prediction)

    return run


def _candidates(prediction: Prediction) -> tuple[NDArray[np.float32], Tensor]:
    """(C, H, W) probabilities of the classes that have any, and their ids: the others can never win."""
    probs = prediction.probs()
    classes = (probs.amax((1, 2)) > LEAST).nonzero()[:, 0]
    return np.ascontiguousarray(probs[classes].numpy()), classes


def _finish(probs: NDArray[np.float32], classes: Tensor, prediction: Prediction) -> Tensor:
    """The winners; void pixels of a label map stay void, as they do for our refiner."""
    labels = classes[torch.from_numpy(probs.argmax(0))]
    return labels.masked_fill(prediction.void, prediction.ignore_index)
