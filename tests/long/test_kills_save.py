"""`save_pretrained` in a loop, killed at random moments: every file is one of the versions, and saving again mends."""

import re
from dataclasses import replace

import pytest

from ddps import DDPSRefiner, InputError

from ..conftest import TINY, make_tiny_refiner
from .kill_runner import assert_known, digests, jobs, temporaries

KILLS = 100
FILES = ("README.md", "config.json", "model.safetensors")


@pytest.mark.long
def test_kills_of_save_pretrained(tmp_path):
    widths = ((96, 96), (96, 96), (64, 128))
    models = []
    for number, width in enumerate(widths):
        network = replace(TINY.network, image_widths=width, slot_widths=width)
        refiner = make_tiny_refiner(replace(TINY, name=f"version {number}", network=network))
        models.append(refiner.save_pretrained(tmp_path / f"model{number}"))
    versions = [digests(model) for model in models]
    known = {name: [version[name] for version in versions] for name in FILES}
    with jobs(tmp_path, seed=1) as run:
        folder, left = tmp_path / "out", set()
        run("load", *models)
        while run.at_random < KILLS:
            assert run.killed("save", folder, within=0.25, events=36)
            found, now = assert_known(folder, known, re.compile("(?!)")), temporaries(folder)
            of = {known[name].index(version) for name, version in found.items()}
            if now - left:
                place = "while files were written" if len(of) == 1 else "between the renames of one save"
                place = place if found else "before the first file had its name"
            else:
                place = "between two saves" if len(found) == 3 else "before the first write"
            run.landed[place] += 1
            left = now
            if len(found) == 3:
                if (
                    found["config.json"]
                    == known["config.json"][known["model.safetensors"].index(found["model.safetensors"])]
                ):
                    DDPSRefiner.from_pretrained(folder, device="cpu")
                else:
                    with pytest.raises(InputError, match="mis-shaped|a save was stopped halfway"):
                        DDPSRefiner.from_pretrained(folder, device="cpu")
        DDPSRefiner.from_pretrained(models[0], device="cpu").save_pretrained(folder)
        assert digests(folder) == versions[0] and temporaries(folder) == set()
        run.report("save_pretrained in a loop")
