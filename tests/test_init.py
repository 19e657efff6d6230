import subprocess
import sys

import pytest

import ddps
from ddps.config import DDPSConfig
from ddps.errors import InputError
from ddps.outputs import Refinement
from ddps.refiner import DDPSRefiner

EXTRAS = ("transformers", "huggingface_hub", "matplotlib", "scipy", "skimage", "cv2", "onnx", "onnxruntime", "gradio")


def imported(code: str, *modules: str) -> list[str]:
    """Which of the modules a new interpreter has imported after the code."""
    code += f"\nimport sys\nprint(*sorted(set({modules!r}) & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_public_names_are_what_they_are_at_home():
    assert (ddps.DDPSConfig, ddps.InputError, ddps.Refinement) == (DDPSConfig, InputError, Refinement)
    assert ddps.DDPSRefiner is DDPSRefiner
    assert set(ddps.__all__) <= set(dir(ddps))
    names = {}
    exec("from ddps import *", names)
    assert set(ddps.__all__) <= set(names)


def test_no_other_names():
    with pytest.raises(AttributeError, match="ddps"):
        _ = ddps.no_such_name
    with pytest.raises(ImportError):
        exec("from ddps import no_such_name")


def test_the_package_costs_nothing_until_a_name_is_used():
    assert imported("import ddps; ddps.__version__", "torch", "numpy", "PIL", *EXTRAS) == []
    assert imported("import ddps; ddps.InputError", "torch", "numpy") == []


def test_loading_the_embedded_weights_imports_what_it_needs():
    code = "from ddps import DDPSRefiner; DDPSRefiner.from_pretrained(device='cpu')"
    assert imported(code, "torch", "ddps.training", "ddps.convert", "ddps.cli", *EXTRAS) == ["torch"]
