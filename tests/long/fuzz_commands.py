"""Command lines as nobody means them: every command's own options, with values and files that mostly do not fit.

`main` must end in 0, 1 or 2, and every 2 in one line that says expected, got, try. Lines that would start real work for
minutes (training, a server, measuring speed) are given one thing more that cannot be.
"""

import argparse
import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from ddps.cli.main import COMMANDS, main, make_parser

from .fuzz_readers import encoded, npy, npz, pixels, png_header

OUTPUTS = ("output", "out", "overlay", "markdown", "changed", "uncertainty", "per_image", "plot")
# Numbers that fit are small, so that no run is long.
NUMBERS = ("-1", "0", "1", "2", "3", "16", "64", "nan", "inf", "-inf", "1e-3", "0.5", "1.5", "100.5", "9" * 30,
           "-" + "9" * 30, "0x10", "", " 2 ", "1_0", "٣", "x", "1e999", "2.0")  # fmt: skip
WORDS = ("", "x", "auto", "labels", "none", "a,b", "16x16", "0x0", "1x1", "x1", "-5x4", "polygon", "folders", "8-8-8",
         "0-0-0", "\x1b[31m", "é", "\udcff", "a\nb", "--", "-", "cpu", "cuda:7", "meta", "cpu:9", "mps",
         "optimizer.lr=x", "=", "a=b", "none:here", "json:loads", "..", "9" * 300)  # fmt: skip
TOO_LONG = {
    "app": ("--port", "0"),
    "speed": ("--repeats", "0"),
    "demo": ("--device", "cuda:7"),
    "export": ("--format", "x"),
    "prior": ("--steps", "1", "--size", "32"),
    "train": ("--data", "/nowhere/at/all"),
}
"""What ends these commands in an error whatever else they were given, or soon."""
FITTING = {
    "image": ("good/photo.png", "good/photo.png", "images", "images", "mixed"),
    "images": ("images", "mixed"),
    "prediction": ("good/logits.npz", "good/logits.npy", "good/labels.png", "good/masks.npy", "predictions", "masks"),
    "predictions": ("predictions", "masks"),
    "masks": ("masks",),
    "mask": ("good/labels.png",),
    "classes": ("good/classes.json",),
    "class_names": ("good/classes.json",),
    "sets": ("good/sets.json",),
    "data": ("set",),
}
"""The files that an option is for."""
FOLDERS = ("images", "masks", "predictions", "mixed", "mixed_predictions", "empty", "bad")
MORE: tuple[tuple[str, ...], ...] = (
    (), (), (), ("--kind", "labels"), ("--kind", "probs"), ("--kind", "logits"), ("--ignore-index", "0"),
    ("--ignore-index", "9" * 25),
    ("--stack",), ("--video",), ("--format", "npz"), ("--review", "0"), ("--overlay", "o.jpg"),
    ("--workers", "1", "--resume"),
    ("--num-samples", "2"), ("--seed", "-3"), ("--steps", "21"), ("--preset", "best"), ("--changed", "c.tif"),
    ("--json",),
)  # fmt: skip


def make_world(folder: Path, model: Path) -> None:
    """Good and bad files that the command lines name."""
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[8:, 10:30] = 1
    scores = 4 * (mask[::2, ::2] == np.arange(3)[:, None, None]).astype(np.float32)
    photo = Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    classes = {"classes": ["a", "b", "c"], "num_classes": 3, "ignore_index": 255}
    files: dict[str, bytes] = {
        "good/photo.png": encoded(photo, "PNG"), "good/labels.png": encoded(Image.fromarray(mask), "PNG"),
        "good/logits.npz": npz({"logits.npy": npy(scores)}), "good/logits.npy": npy(scores - 1),
        "good/masks.npy": npy(mask[None] > 0), "good/classes.json": json.dumps(classes).encode(),
        "bad/zero.png": b"", "bad/cut.png": encoded(photo, "PNG")[:-900], "bad/text.npz": b"text",
        "bad/cut.npy": npy(scores)[:90],
        "bad/bomb.png": png_header(60_000, 60_000), "bad/objects.npy": npy(np.array([{}], dtype=object)),
        "bad/nan.npy": npy(scores * np.nan), "bad/flat.npy": npy(scores[0, 0]),
        "bad/member.npz": npz({"logits": b"raw"}),
        "bad/many.png": encoded(pixels("I;16"), "PNG"), "bad/colour.png": encoded(photo, "PNG"),
        "bad/deep.json": b"[" * 90_000, "bad/list.json": b"[1]", "bad/wrong.json": b'{"num_classes": -4}',
        "bad/huge.json": b'{"num_classes": 1e400, "classes": 3}', "bad/bytes.json": b"\xff\xfe\x00",
        "bad/esc\x1b[31m.png": b"x", "bad/pickle.pth": b"\x80\x04}q\x00.", "bad/config/config.json": b"{}",
        "bad/config/model.safetensors": b"", "bad/weights/config.json": (model / "config.json").read_bytes(),
        "bad/weights/model.safetensors": (model / "model.safetensors").read_bytes()[:-40], "empty/.hidden": b"",
    }  # fmt: skip
    for stem in ("a", "b"):
        files[f"images/{stem}.png"] = files[f"set/train/images/{stem}.png"] = encoded(photo, "PNG")
        files[f"masks/{stem}.png"] = files[f"set/train/masks/{stem}.png"] = files["good/labels.png"]
        files[f"predictions/{stem}.npz"] = files["good/logits.npz"]
    files["mixed/a.png"], files["mixed/b.png"] = files["bad/cut.png"], files["good/photo.png"]
    files["mixed_predictions/a.npz"], files["mixed_predictions/b.npy"] = files["good/logits.npz"], files["bad/nan.npy"]
    spoilt = {
        "negative": mask - 3.0, "ids": mask.astype(np.int64) * 70_000, "wide": mask.astype(np.uint64) * 2**63,
        "one": scores[:1],
        "half": scores.astype(np.float16) / 9, "flat": scores * 0, "unsigned": scores.astype(np.uint8),
        "complex": scores * 1j,
        "four": scores[None], "void": mask * 0 + 255, "binary": mask * 255, "small": mask[:2, :2],
        "text": np.array(["x"]),
        "times": mask.astype("M8[s]"), "record": np.zeros((2, 2), "f4,f4"), "none": scores[:, :0],
        "minus": -mask.astype(np.int16),
    }  # fmt: skip
    for name, value in spoilt.items():
        files[f"bad/{name}.npy"], files[f"bad/{name}.npz"] = npy(value), npz({"labels.npy": npy(value)})
        files[f"bad/probs_{name}.npz"] = npz({"probs.npy": npy(value)})
        if value.dtype == np.uint8 and value.ndim == 2:
            files[f"bad/{name}.png"] = encoded(Image.fromarray(value), "PNG")
    files["set/classes.json"] = files["good/classes.json"]
    entry = {"name": "s", "images": "../images", "masks": "../masks", "classes": "classes.json"}
    for name, value in {"sets": [entry], "empty_sets": [], "none": None, "number": [3]}.items():
        files[f"good/{name}.json"] = json.dumps({"sets": value}).encode()
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def command_line(index: int, world: Path, scratch: Path, model: Path) -> list[str]:
    """Number `index`, always the same in the same folders."""
    rng = Random(f"command {index}")
    if rng.random() < 0.3:
        return _tame_line(rng, world, scratch, model)
    command = rng.choice((*COMMANDS, "refine", "refine", "refine", "evaluate", "prior", "info", "convert"))
    parser, words = _subparser(make_parser(command), command), [command]
    while isinstance(parser._actions[-1], argparse._SubParsersAction):
        kind = rng.choice(list(parser._actions[-1].choices))
        words.append(kind)
        parser = parser._actions[-1].choices[kind]
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    wild = rng.choice((0.0, 0.0, 0.1, 0.5))
    likely = rng.choice((0.0, 0.05, 0.15))
    given = []
    for action in actions:
        chance = 0.8 if action.dest in FITTING and action.dest != "data" else likely
        if action.option_strings and (action.required or rng.random() < chance):
            given.append(action)
    rng.shuffle(given)
    places = _Places(rng, wild, world, scratch, model)
    for action in actions:
        if not action.option_strings:
            words += [places.value(action) for _ in range(rng.choice((0, 2)) if rng.random() < wild else 1)]
    for action in given:
        words += [] if rng.random() < wild / 4 else [action.option_strings[-1]]
        if action.nargs != 0:
            words += [places.value(action) for _ in range(rng.choice((0, 2)) if rng.random() < wild / 4 else 1)]
    if rng.random() < 0.7 and any(action.dest == "model" and action.option_strings for action in actions):
        words += ["--model", str(model)]
    if rng.random() < wild / 4:
        words.insert(rng.randrange(len(words) + 1), rng.choice(WORDS))
    return [*words, *TOO_LONG.get(words[1] if words[1:] and words[1] in TOO_LONG else command, ())]


def _tame_line(rng: Random, world: Path, scratch: Path, model: Path) -> list[str]:
    """`ddps refine` or `evaluate` as it should be, with files of any kind in its places."""
    places = _Places(rng, 0, world, scratch, model)
    file, folder = (lambda: rng.choice(places.inputs)), (lambda: str(world / rng.choice(FOLDERS)))
    end = ["--model", str(model), *rng.choice(MORE)]
    if rng.random() < 0.25:
        asked = [word for name in ("images", "masks", "predictions") for word in (f"--{name}", folder())]
        return ["evaluate", *asked, "--classes", rng.choice((str(world / "good/classes.json"), file())), *end[:2]]
    if rng.random() < 0.3:
        return ["refine", folder(), folder(), "-o", str(scratch / "folder"), *end]
    pair = [str(world / "good/photo.png") if rng.random() < 0.7 else file(), file()]
    return ["refine", *pair, "-o", rng.choice(places.outputs[:2] * 3 + places.outputs), *end]


class _Places:
    """Values for options, by what the option is; the wilder, the more of them do not fit at all."""

    def __init__(self, rng: Random, wild: float, world: Path, scratch: Path, model: Path):
        self.rng, self.wild, self.world = rng, wild, world
        found = sorted(path for path in world.rglob("*") if not path.name.startswith("."))
        self.good = [str(path) for path in found if "bad" not in path.parts]
        self.inputs = [
            *map(str, found),
            str(world / "none.png"),
            str(world / ("n" * 300)),
            "/dev/null",
            "/dev/zero",
            "",
        ]
        names = (
            "o.png",
            "o.npz",
            "o.npy",
            "o.tif",
            "o.jpg",
            "o.xyz",
            "none/o.png",
            "folder",
            "there.png",
            ".",
            "é\x1b.png",
        )
        self.outputs = [str(scratch / name) for name in names]
        self.model = str(model)

    def value(self, action: argparse.Action) -> str:
        rng = self.rng
        if rng.random() < self.wild / 4:
            return rng.choice((*WORDS, *NUMBERS))
        if action.choices:
            return str(rng.choice(tuple(action.choices)))
        if action.dest in OUTPUTS:
            return rng.choice(self.outputs)
        if action.dest in ("model", "init", "backbone"):
            return rng.choice((self.model, *self.inputs))
        if action.dest in FITTING and rng.random() < 0.75:
            return str(self.world / rng.choice(FITTING[action.dest]))
        if action.type is Path or action.dest in ("data", "predictions"):
            return rng.choice(self.good if rng.random() < 0.6 else self.inputs)
        return rng.choice((*NUMBERS, *NUMBERS, *WORDS) if rng.random() < self.wild else ("1", "2", "0.5", "16x16"))


def _subparser(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    [commands] = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return commands.choices[command]


def run(words: list[str], scratch: Path) -> int:
    """Runs one command line in a folder of its own, and checks how it ends.

    Returns:
        Its exit code.
    """
    out, err = io.StringIO(), io.StringIO()
    (scratch / "folder").mkdir(exist_ok=True)
    (scratch / "there.png").write_bytes(b"here")
    with _inside(scratch), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = main(words)
        except SystemExit as ended:
            code = ended.code or 0
    said = err.getvalue()
    assert code in (0, 1, 2), (code, words)
    assert "Traceback" not in said, said
    if code == 2:
        *before, last = said.splitlines() or [""]
        assert last.startswith("ddps: error: ") and "; try " in last and last.isprintable(), (ascii(said), words)
        assert all(line.startswith("ddps: ") for line in before if line.strip()), (ascii(said), words)
    return code


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
