"""The tool in InternGPT's place: copied into a package like its own, registered as its bot does, and used."""

import importlib
import re
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps.label_spaces import ADE20K_PALETTE

LOAD = "DDPSMaskRefiner_cpu"
# Words upon which the bot takes the request into its own hands, in any of its languages of command.
TAKEN = ("remove", "erase", "replace", "extract", "save", "generate", "beautify", "describe", "introduce")
COMMAND = f'"{sys.executable}" -m ddps.cli.main'

UTILS = """
import os, uuid

def prompts(name, description):
    def decorate(function):
        function.name, function.description = name, description
        return function
    return decorate

def gen_new_name(path, suffix="update", ext="png"):
    folder, name = os.path.split(path)
    first = os.path.splitext(name)[0].split("_")[0]
    return os.path.join(folder, f"{uuid.uuid4().hex[:3]}417_{first}_{suffix}.{ext}")
"""


class Bot:
    """What InternGPT's bot does with its tools: made from `--load`, listed by name, called with one string."""

    def __init__(self, load, models, e_mode=False):
        devices = {entry.split("_")[0].strip(): entry.split("_")[1].strip() for entry in load.split(",")}
        exported = {name: getattr(models, name) for name in models.__all__}
        self.models = {name: exported[name](device=device, e_mode=e_mode) for name, device in devices.items()}
        self.tools = {}
        for model in self.models.values():
            for name in dir(model):
                if name.startswith("inference"):
                    tool = getattr(model, name)
                    self.tools[tool.name] = tool

    def use(self, inputs):
        (tool,) = self.tools.values()
        return tool(inputs)


@pytest.fixture
def models(tmp_path, monkeypatch, request):
    """`iGPT.models` with the tool in it, as docs/interngpt.md says to put it there."""
    package = tmp_path / "checkout" / "iGPT" / "models"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "utils.py").write_text(textwrap.dedent(UTILS))
    shutil.copy(request.config.rootpath / "examples" / "interngpt_tool.py", package / "ddps.py")
    docs = (request.config.rootpath / "docs" / "interngpt.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n( *from \.ddps import.*?)```", docs, re.DOTALL)
    (package / "__init__.py").write_text("__all__ = []\n" + textwrap.dedent(lines[1]))
    monkeypatch.syspath_prepend(package.parent.parent)
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield importlib.import_module("iGPT.models")
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "iGPT":
            del sys.modules[name]


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A bright disc on a dark ground as image/ab12_x.png, and a rough mask of it; the current folder is above."""
    monkeypatch.chdir(tmp_path)
    Path("image").mkdir()
    rows, columns = np.mgrid[:72, :96]
    disc = (rows - 36) ** 2 + (columns - 48) ** 2 < 22**2
    picture = np.where(disc[..., None], (230, 190, 60), (30, 50, 110)).astype(np.uint8)
    Image.fromarray(picture).save("image/ab1234_ab1234_.png")
    return disc, disc[::8, ::8].repeat(8, 0).repeat(8, 1)


IMAGE, MASK = "image/ab1234_ab1234_.png", "image/cde567_ab1234_mask.png"


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_the_command_line_refines_a_mask_under_the_bots_rules(models, scene, monkeypatch):
    disc, rough = scene
    Image.fromarray(rough.astype(np.uint8) * 255).save(MASK)
    monkeypatch.setenv("DDPS_COMMAND", COMMAND)
    bot = Bot(LOAD, models)
    (tool,) = bot.tools.values()
    assert "comma separated string of two" in tool.description and "image_path and the mask_path" in tool.description
    assert not [word for word in TAKEN if word in (tool.name + tool.description).lower()]
    path = bot.use(f"{IMAGE}, {MASK}")
    # What the bot reads off a name: when it was made, whose child it is, and that it is a mask.
    assert re.fullmatch(r"image/[-\w]*mask.png", path)
    assert int(Path(path).name.split("_")[0][3:]) == 417 and Path(path).name.split("_")[1] == "ab1234"
    refined = np.asarray(Image.open(path))
    assert refined.shape == disc.shape and set(np.unique(refined)) == {0, 255}
    assert iou(refined == 255, disc) > iou(rough, disc) + 0.05
    assert sorted(file.name for file in Path("image").iterdir()) == sorted([Path(p).name for p in (IMAGE, MASK, path)])


def test_a_failing_command_becomes_a_sentence(models, scene, monkeypatch):
    monkeypatch.setenv("DDPS_COMMAND", COMMAND)
    Image.fromarray(scene[1]).save(MASK)
    answer = Bot(LOAD, models).use(f"image/nothing.png,{MASK}")
    assert answer.startswith("The mask could not be refined: ") and "image/nothing.png" in answer
    assert "Traceback" not in answer and "\n" not in answer


@pytest.mark.parametrize("e_mode", [False, True])
def test_in_process_it_gives_what_the_command_line_does(models, scene, monkeypatch, tiny_model_dir, e_mode):
    monkeypatch.delenv("DDPS_COMMAND", raising=False)
    monkeypatch.setenv("DDPS_MODEL", str(tiny_model_dir))
    Image.fromarray(scene[1]).save(MASK)
    bot = Bot(LOAD, models, e_mode)
    first, second = (np.asarray(Image.open(bot.use(f"{IMAGE},{MASK}"))) for _ in range(2))
    assert np.array_equal(first, second) and set(np.unique(first)) <= {0, 255}
    assert (bot.models["DDPSMaskRefiner"].refiner is None) == e_mode


@pytest.fixture
def quick(models, scene, monkeypatch, tiny_model_dir):
    """A bot whose tool runs in this process, with a tiny model."""
    monkeypatch.delenv("DDPS_COMMAND", raising=False)
    monkeypatch.setenv("DDPS_MODEL", str(tiny_model_dir))
    return Bot(LOAD, models)


def test_classes_are_painted_as_segtext2image_reads_them(quick, scene):
    labels = np.where(scene[1], 12, 2).astype(np.uint8)
    labels[:4] = 255
    Image.fromarray(labels).save("image/fed321_ab1234_seg.png")
    path = quick.use(f"{IMAGE},image/fed321_ab1234_seg.png")
    assert path.endswith("_ab1234_seg.png")
    seen = {tuple(colour) for colour in np.asarray(Image.open(path)).reshape(-1, 3).tolist()}
    assert seen == {ADE20K_PALETTE[12], ADE20K_PALETTE[2], (0, 0, 0)}


@pytest.mark.parametrize(("inside", "outside"), [((200, 13, 77), (9, 8, 7)), ((255, 0, 0), (0, 0, 255))])
def test_colours_stay_those_that_came(quick, scene, inside, outside):
    colours = np.where(scene[1][..., None], inside, outside).astype(np.uint8)
    Image.fromarray(colours).save("image/fed321_ab1234_seg.png")
    path = quick.use(f"'{IMAGE}' , 'image/fed321_ab1234_seg.png'")
    assert path.endswith("_ab1234_seg.png")
    answer = np.asarray(Image.open(path)).reshape(-1, 3).tolist()
    assert {tuple(colour) for colour in answer} == {inside, outside}


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_a_mask_in_any_mode_is_one_region(quick, scene, mode):
    for path in ("image/region.png", MASK):
        Image.fromarray(scene[1]).convert(mode).save(path)
        assert quick.use(f"{IMAGE},{path}").endswith("_mask.png")


def test_what_is_no_mask_becomes_a_sentence(quick, scene):
    noise = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save("image/noise.png")
    Path("image/text.png").write_text("no picture")
    for inputs, said in (
        (f"{IMAGE},image/noise.png", "colours, more than a segmentation of 255 classes"),
        (f"{IMAGE},image/text.png", "could not be refined"),
        (f"{IMAGE},image/absent.png", "absent.png"),
        (IMAGE, "needs two paths"),
        (f"{IMAGE},{MASK},more", "needs two paths"),
        ("", "needs two paths"),
    ):
        answer = quick.use(inputs)
        assert said in answer and not Path(answer).exists()


def test_without_any_ddps_it_says_what_to_set(models, monkeypatch):
    monkeypatch.delenv("DDPS_COMMAND", raising=False)
    monkeypatch.setitem(sys.modules, "ddps", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="set DDPS_COMMAND to its command line"):
        Bot(LOAD, models)


def test_its_palette_is_ade20ks(models):
    assert bytes(sum(ADE20K_PALETTE, ())) == importlib.import_module("iGPT.models.ddps").ADE_COLOURS
