"""`ddps train`, killed at random moments again and again, and resumed: bit for bit the run that nobody stopped."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSConfig, DDPSRefiner, InputError
from ddps.config import LogitsNetwork

from .kill_runner import Jobs, assert_known, digests, jobs, noted, temporaries

KILLS, KILLS_OF_A_RUN = 40, 7
STEPS, SAVE_EVERY, VALIDATE_EVERY = 12, 2, 4
# its rows say how long things took; its picture shows rows that a killed run had written ahead of its checkpoint
OWN = re.compile(r"log\.jsonl|curves\.svg")


def data_set(folder: Path) -> Path:
    """Bright rectangles on a dark ground."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((48, 48), dtype=np.uint8)
            top, left = rng.integers(2, 20, 2)
            mask[top : top + 20, left : left + 20] = 1
            grey = 60 + 120 * mask + rng.normal(0, 12, mask.shape)
            image = np.repeat(grey[:, :, None], 3, 2).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{number}.png")
    (folder / "classes.json").write_text(json.dumps({"classes": ["ground", "square"], "num_classes": 2}))
    return folder


def rows(run: Path) -> dict[tuple[int, bool], dict]:
    """(step, whether it is a validation) → the last row of it, without its times."""
    found = {}
    for line in (run / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        found[row["step"], "validation" in row] = {key: value for key, value in row.items() if key != "seconds"}
    return found


@pytest.mark.long
def test_kills_of_train(tmp_path):
    arguments = command(tmp_path)
    with jobs(tmp_path, seed=2) as run:
        whole = tmp_path / "whole"
        known = recorded(run, arguments, whole)
        seconds = run.whole("ddps", *arguments, "--out", tmp_path / "again")
        runs = 0
        while run.at_random < KILLS:
            folder = tmp_path / f"killed{runs}"
            runs += 1
            known["train.json"] = [settings_of(whole, folder)]
            killed_then_resumed(run, [*arguments, "--out", folder], folder, known, seconds)
            assert_same_run(folder, whole)
        run.report(f"ddps train, {runs} runs of {STEPS} steps ({seconds:.1f} s each)")


def command(root: Path) -> list:
    """A training that takes a second, without the folder of its run."""
    network = LogitsNetwork(image_widths=(8, 8, 8, 8), slot_widths=(4, 4, 4, 4), max_slots=4)
    config = replace(DDPSConfig(), network=network, inference=replace(DDPSConfig().inference, tile=128, overlap=16))
    (root / "config.json").write_text(config.to_json())
    options = {
        "data": data_set(root / "squares"), "model-config": root / "config.json", "name": "killed",
        "steps": STEPS, "save-every": SAVE_EVERY, "validate-every": VALIDATE_EVERY, "validate-images": 1,
        "batch-size": 2, "crop": 32, "warmup": 2, "amp": "off", "device": "cpu",
    }  # fmt: skip
    return ["train", *(word for name, value in options.items() for word in (f"--{name}", value))]


def recorded(run: Jobs, arguments: list, whole: Path) -> dict[str, list[str]]:
    """Runs it without a stop; name → SHA-256 of every version of every file, the checkpoints' all different."""
    notes = whole.with_name("notes")
    run.whole("ddps_recorded", notes, *arguments, "--out", whole)
    known = noted(notes, whole)
    assert len(set(known["state.safetensors"])) == len(known["state.safetensors"]) == STEPS // SAVE_EVERY
    return known


def settings_of(whole: Path, folder: Path) -> str:
    """SHA-256 of `train.json` of the same run in another folder."""
    text = (whole / "train.json").read_text().replace(str(whole), str(folder))
    return hashlib.sha256(text.encode()).hexdigest()


def killed_then_resumed(run: Jobs, arguments: list, folder: Path, known: dict, seconds: float) -> None:
    """Kills a run until it comes to its end, or has been killed often enough and is left to it."""
    left: set[Path] = set()
    for _ in range(KILLS_OF_A_RUN):
        if not run.killed("ddps", *arguments, within=0.6 * seconds, events=2 * sum(map(len, known.values()))):
            return
        found, now = assert_known(folder, known, OWN), temporaries(folder)
        run.landed[place_of(found, now - left)] += 1
        left = now
        if "curves.svg" in found:
            assert (folder / "curves.svg").read_text().endswith("</svg>\n")
        if "log.jsonl" in found:
            rows(folder)
        for name in ("best", "last"):
            if {f"{name}/config.json", f"{name}/model.safetensors"} <= found.keys():
                assert_loads_or_says_why(folder / name)
    run.whole("ddps", *arguments)


def place_of(found: dict[str, str], written: set[Path]) -> str:
    if written:
        # `.state.safetensors.0123456789ab.tmp`; several files of one save are written together
        names = {path.name[1:-17] for path in written}
        return f"while {max(names)} was written"
    if not found:
        return "before the first file"
    return "between writes" if "state.safetensors" in found else "before the first checkpoint"


def assert_loads_or_says_why(model: Path) -> None:
    try:
        DDPSRefiner.from_pretrained(model, device="cpu")
    except InputError as error:
        assert "a save was stopped halfway" in str(error)


def assert_same_run(folder: Path, whole: Path) -> None:
    """Weights, averages, the optimizer's state, best and last, pictures and figures; nothing of the kills is left."""
    differ = {"train.json", "log.jsonl"}  # the run's own name, and its times
    one, other = ({k: v for k, v in digests(path).items() if k not in differ} for path in (folder, whole))
    assert {"state.safetensors", "best/model.safetensors", "last/model.safetensors", "curves.svg"} <= one.keys()
    assert one == other
    assert rows(folder) == rows(whole)
    assert temporaries(folder) == set()
