"""DDPS as a tool of InternGPT: refines a mask or a segmentation that the conversation has at hand.

Copy this file to `iGPT/models/ddps.py` and list the class in `iGPT/models/__init__.py`; docs/interngpt.md has the
lines. InternGPT pins an older torch than ddps needs, so ddps lives in an environment of its own and is called by its
command line. Two variables of the environment that InternGPT runs in say how:

    DDPS_COMMAND   the command line of ddps, such as "/opt/ddps/bin/ddps" or "conda run -n ddps ddps". Without it
                   ddps is imported where it can be, and looked up on the PATH where it cannot.
    DDPS_MODEL     the weights: "universal" (the default), a folder or a Hub id.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from .utils import gen_new_name, prompts

# ADE20K's colours of its 150 classes, in which SegText2Image reads a segmentation.
ADE_COLOURS = bytes.fromhex(
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04ff3307"
    "cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffffe0ff086608ff"
    "ff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ffff4700"
    "00ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff000052ff00ff2900ffad0a00ff"
    "adff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc200ff52000aff0070ff3300ff00c2ff"
    "007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ffff001f00b8ff00d6ffff00705cff0000e0ff"
    "70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ffff007afff5000abed4d6ff0000ccff1400ffffff00"
    "0099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c00ff"
)
VOID = 255


class DDPSMaskRefiner:
    """Moves the outlines of a mask to where the image has them.

    Args:
        device: where ddps runs, such as "cuda:0".
        e_mode: hold the device only while a mask is refined. A command line does that anyway.

    Raises:
        RuntimeError: no ddps can be found.
    """

    def __init__(self, device, e_mode):
        print(f"Initializing DDPSMaskRefiner to {device}")
        self.device, self.e_mode = device, e_mode
        self.model = os.environ.get("DDPS_MODEL", "universal")
        self.command = shlex.split(os.environ.get("DDPS_COMMAND", ""))
        self.refiner = None
        if self.command:
            return
        try:
            import ddps  # noqa: F401
        except ImportError:
            found = shutil.which("ddps")
            if found is None:
                raise RuntimeError(
                    "no ddps here: set DDPS_COMMAND to its command line, see docs/interngpt.md"
                ) from None
            self.command = [found]

    # The bot offers every attribute that starts with "inference" as a tool, so there is this one only.
    @prompts(
        name="Refine The Outline Of A Mask",
        description="useful when you want to make the outline of a mask or of a segmentation fit the image better. "
        "like: refine the mask, make the clicked region fit the object, sharpen the edges of this segmentation. "
        "The input to this tool should be a comma separated string of two, "
        "representing the image_path and the mask_path",
    )
    def inference(self, inputs: str) -> str:
        """Refines "image_path,mask_path" and returns the new mask's path, or a sentence about what went wrong."""
        paths = [part.strip(" \t\n\"'`") for part in inputs.split(",")]
        if len(paths) != 2:
            return f"Refining needs two paths, image_path,mask_path, and got {inputs!r}."
        try:
            path = self._refine(*paths)
        except (OSError, ValueError, RuntimeError) as error:
            return f"The mask could not be refined: {error}"
        print(f"\nProcessed DDPSMaskRefiner, Inputs: {inputs}, Output Mask: {path}")
        return path

    def _refine(self, image_path, mask_path):
        labels, colours = read_mask(mask_path)
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder, "before.png"), Path(folder, "after.png")
            Image.fromarray(labels).save(before)
            if self.command:
                self._call(image_path, before, after)
            else:
                self._load().refine(image_path, before).save(after)
                self._let_go()
            with Image.open(after) as refined:
                answer = np.asarray(refined)
        # The bot finds a mask's image by the name, so the new name is derived from the image's.
        path = gen_new_name(image_path, "mask" if colours is None else "seg")
        picture = (answer == 1).astype(np.uint8) * 255 if colours is None else colours[answer]
        # Whole or not at all: the bot looks for the file by its name.
        Image.fromarray(picture).save(f"{path}.part", "PNG")
        os.replace(f"{path}.part", path)
        return path

    def _call(self, image_path, before, after):
        options = ["--model", self.model, "--device", self.device]
        command = [*self.command, "refine", image_path, str(before), "-o", str(after), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"{self.command[0]} failed without a word"])[-1])

    def _load(self):
        from ddps import DDPSRefiner

        if self.refiner is None:
            self.refiner = DDPSRefiner.from_pretrained(self.model, device=self.device)
        return self.refiner

    def _let_go(self):
        if self.e_mode:
            self.refiner = None
            if self.device.startswith("cuda"):
                import torch

                torch.cuda.empty_cache()


def read_mask(path):
    """Reads what InternGPT's tools write.

    Args:
        path: black and white for one region, as a name that ends in "mask" says by itself; grey or palette, the pixel
            being the class; or a segmentation in colours, of which there may be 255.

    Returns:
        (H, W) uint8 classes; and the (256, 3) uint8 colour of each, None for one region.

    Raises:
        OSError: no such file, or no picture.
        ValueError: more colours than classes.
    """
    with Image.open(path) as file:
        picture = file.convert("RGB") if file.mode not in ("1", "L", "P") else file.copy()
    pixels = np.asarray(picture if picture.mode != "1" else picture.convert("L"))
    grey_only = pixels.ndim == 2 or not np.ptp(pixels, axis=2).any()
    black_and_white = picture.mode != "P" and grey_only and set(np.unique(pixels)) <= {0, 255}
    if Path(path).stem.endswith("mask") or black_and_white:
        grey = np.asarray(picture.convert("L"))
        return (grey > grey.max() / 2).astype(np.uint8), None
    colours = np.zeros((256, 3), np.uint8)
    if pixels.ndim == 2:
        colours[:150] = np.frombuffer(ADE_COLOURS, np.uint8).reshape(150, 3)
        return pixels, colours
    seen, labels = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(seen) > VOID:
        raise ValueError(f"{path} has {len(seen)} colours, more than a segmentation of {VOID} classes can have")
    colours[: len(seen)] = seen
    return labels.reshape(pixels.shape[:2]).astype(np.uint8), colours
