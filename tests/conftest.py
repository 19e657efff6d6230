"""Fixtures for all tests: the shared data folder, where there is one, and a tiny refiner."""

import importlib.util
import os
import sys
import types
from contextlib import suppress
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import InferenceConfig, LabelSpace, LogitsNetwork
from ddps.refiner import build_network

torch.set_num_threads(1)


def _import_torchvision() -> torch.library.Library | None:
    """Makes a CUDA wheel of torchvision importable beside a CPU build of torch, which cannot load its operators.

    torchvision describes two of them when it is imported. No segmentor runs any.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    with suppress(RuntimeError):
        import torchvision  # noqa: F401

        return None
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators


class _AbsentOperators(types.ModuleType):
    """mmcv's compiled operators, which mmcv-lite lacks and mmseg looks for when it is imported."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*_: object) -> None:
            raise RuntimeError(f"mmcv-lite has no operator {name}")

        return operator


def _offer_mmcv_operators() -> None:
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None or any(list(Path(place).glob("_ext*")) for place in mmcv.submodule_search_locations or ()):
        return
    module = _AbsentOperators("mmcv._ext")
    module.__spec__ = ModuleSpec(module.__name__, None)  # mmengine reads it as: not there
    sys.modules[module.__name__] = module


_operators = _import_torchvision()  # its definitions last as long as the object
_offer_mmcv_operators()

TINY = DDPSConfig(
    name="tiny",
    network=LogitsNetwork(image_widths=(8, 8), slot_widths=(8, 8), max_slots=4),
    inference=InferenceConfig(steps=2, tile=128, overlap=16),
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden data, data sets and segmentors: $DDPS_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("DDPS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data folder, which is not at {folder}; set DDPS_SHARED to where it is")
    return folder


def make_tiny_refiner(config: DDPSConfig = TINY) -> DDPSRefiner:
    """A refiner on the CPU with a small network whose random weights do change masks."""
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        # Untrained, the network returns the prediction as it is: its last layers start at zero.
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return DDPSRefiner(config, network, device="cpu")


@pytest.fixture(scope="session")
def tiny_refiner() -> DDPSRefiner:
    return make_tiny_refiner()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_refiner`, saved; takes any number of classes."""
    return make_tiny_refiner().save_pretrained(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_model_of_5_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for exactly 5 classes."""
    config = replace(TINY, labels=LabelSpace(num_classes=5))
    return make_tiny_refiner(config).save_pretrained(tmp_path_factory.mktemp("tiny5"))


EXPORTED = replace(TINY, inference=InferenceConfig(steps=2, mix=0.75, hedge=0.2, tile=1024, working_size=96))


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make_tiny_refiner(EXPORTED)` as an ONNX file; the folder beside it, `model`, is the model."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="exporting needs it: pip install '.[onnx]'")
    from ddps.export import export

    folder, refiner = tmp_path_factory.mktemp("onnx"), make_tiny_refiner(EXPORTED)
    refiner.save_pretrained(folder / "model")
    return export(refiner, folder / "tiny.onnx", "onnx").path
