"""Finding the adapter: what passes untouched, what is refused, and that no library is imported for it."""

import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import InputError
from ddps.adapters import adapt
from ddps.video import VideoRefiner

IMAGE = np.zeros((8, 12, 3), np.uint8)


@pytest.mark.parametrize(
    "prediction",
    ["labels.png", np.zeros((2, 3)), torch.zeros(2, 3, 4), Image.new("L", (3, 2))],
    ids=lambda p: type(p).__name__,
)
def test_what_refine_knows_is_not_touched(prediction):
    assert adapt(IMAGE, prediction) == (prediction, "auto") or adapt(IMAGE, prediction)[0] is prediction
    assert adapt([IMAGE], [prediction], "probs")[0][0] is prediction


def test_a_batch_as_one_array_is_not_touched():
    logits = torch.zeros(2, 3, 4, 5)
    assert adapt([IMAGE, IMAGE], logits)[0] is logits
    assert adapt(torch.zeros(2, 3, 8, 12), logits)[0] is logits


@pytest.mark.parametrize(
    ("prediction", "got"),
    [
        (object(), "got object"),
        ({"masks_": 1}, "got dict with masks_"),
        (3, "got int"),
        ([[1, 2]], "got list; try passing predictions one by one"),
        (torch.nn.Identity(), "got torch.nn.modules.linear.Identity"),
    ],
)
def test_the_unknown_is_refused_in_a_line_that_names_the_known(prediction, got):
    for image, its in ((IMAGE, prediction), ([IMAGE, IMAGE], [prediction, prediction])):
        with pytest.raises(InputError) as caught:
            adapt(image, its)
        said = str(caught.value)
        assert got in said and "\n" not in said
        assert all(name in said for name in ("transformers", "torchvision", "segmentation_models_pytorch", "mmseg"))


def test_a_batch_holds_one_kind(tiny_refiner):
    dense = OrderedDict(out=torch.randn(1, 3, 4, 6))
    labels = {"predictions": np.zeros((4, 6), np.int64)}
    with pytest.raises(InputError, match="logits and label maps"):
        adapt([IMAGE, IMAGE], [dense, labels])
    with pytest.raises(InputError, match="arrays and outputs mixed"):
        adapt([IMAGE, IMAGE], [dense, torch.randn(3, 4, 6)])
    assert len(tiny_refiner.refine([IMAGE, IMAGE], [dense, dense])) == 2
    with pytest.raises(InputError, match="a prediction for each of 2 images; got 1"):
        tiny_refiner.refine([IMAGE, IMAGE], [dense])


def test_frames_of_a_video_take_outputs_too(tiny_refiner):
    out = torch.randn(1, 3, 4, 6)
    first = VideoRefiner(tiny_refiner).refine(IMAGE, {"out": out})
    own = VideoRefiner(tiny_refiner).refine(IMAGE, out[0], kind="logits")
    assert torch.equal(first.labels, own.labels) and torch.equal(first.probs, own.probs)


def test_outputs_are_never_changed(tiny_refiner):
    out = torch.randn(1, 3, 4, 6, requires_grad=True)
    before = out.detach().clone()
    tiny_refiner.refine(IMAGE, {"out": out})
    assert torch.equal(out, before)


def test_no_library_is_imported():
    script = (
        "import sys, numpy, torch, ddps.stacks; from ddps.adapters import adapt\n"
        "adapt(numpy.zeros((8, 12, 3), numpy.uint8), {'out': torch.zeros(1, 2, 3, 4)})\n"
        "print({'transformers', 'torchvision', 'mmseg', 'mmengine', 'segmentation_models_pytorch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr
