import pytest

from ddps.config import InferenceConfig
from ddps.errors import InputError
from ddps.settings import Settings, preset_defaults

NOTHING_ASKED = {
    "steps": None,
    "sampler": None,
    "seed": 0,
    "num_samples": 1,
    "guidance_scale": 0.0,
    "tile": None,
    "return_trajectory": False,
    "callback": None,
}


def over(defaults: InferenceConfig | None = None, most_steps: int = 20, **asked: object) -> Settings:
    return Settings.over(defaults or InferenceConfig(), most_steps, **{**NOTHING_ASKED, **asked})


def test_defaults_of_the_model():
    settings = over(InferenceConfig(steps=7, sampler="posterior", mix=0.25, tile=256, overlap=32))
    assert (settings.steps, settings.sampler, settings.mix, settings.tile, settings.overlap) == (
        7, "posterior", 0.25, 256, 32,
    )  # fmt: skip
    assert over(InferenceConfig(steps=100)).steps == 20


def test_what_is_asked_wins():
    settings = over(steps=20, sampler="posterior", seed=2**63 - 1, num_samples=3, guidance_scale=1, tile=100)
    assert (settings.steps, settings.sampler, settings.seed, settings.num_samples) == (20, "posterior", 2**63 - 1, 3)
    assert settings.guidance_scale == 1.0 and settings.tile == 100


def test_small_tiles_overlap_by_no_more_than_a_quarter():
    assert over(InferenceConfig(overlap=96), tile=64).overlap == 16


def test_a_single_pass_is_one_step():
    assert over(sampler="single").steps == 1 and over(sampler="single", steps=5).steps == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 0},
        {"steps": 21},
        {"steps": 1.0},
        {"steps": 0, "sampler": "single"},
        {"sampler": "ddim"},
        {"num_samples": 0},
        {"num_samples": True},
        {"tile": 63},
        {"seed": -1},
        {"seed": None},
        {"guidance_scale": 101},
        {"guidance_scale": None},
        {"guidance_scale": float("inf")},
    ],
)
def test_out_of_range(asked):
    with pytest.raises(InputError, match=next(iter(asked)) if "sampler" not in asked else "sampler|steps"):
        over(**asked)


@pytest.mark.parametrize("after", [(0,), (6,), (2, 2), (3, 1), (1.0,)])
def test_answers_are_only_there_after_steps_of_the_chain(after):
    with pytest.raises(InputError, match="after as increasing numbers of steps from 1 to 5"):
        over(steps=5, after=after)
    assert over(steps=5, after=(1, 5)).after == (1, 5)
    with pytest.raises(InputError, match="from 1 to 1"):
        over(steps=5, sampler="single", after=(1, 2))


@pytest.mark.parametrize(
    ("preset", "plug_in", "asked", "expected"),
    [
        ("default", True, {}, ("free", 2, 540)),
        ("fast", True, {}, ("single", 1, 0)),
        ("fast", True, {"steps": 3}, ("free", 3, 0)),
        ("fast", True, {"sampler": "posterior", "steps": 2}, ("posterior", 2, 0)),
        ("best", True, {}, ("free", 2, 720)),
        ("best", True, {"steps": 5}, ("free", 5, 720)),
        ("fast", False, {}, ("single", 1, 0)),
        ("best", False, {}, ("free", 20, 540)),
    ],
)
def test_presets_and_what_goes_before_them(preset, plug_in, asked, expected):
    defaults = InferenceConfig(steps=2, working_size=540)
    settings = over(defaults, preset=preset, plug_in=plug_in, **asked)
    assert (settings.sampler, settings.steps, settings.working_size) == expected


def test_an_unknown_preset_names_the_three():
    with pytest.raises(InputError, match="'fast', 'default' or 'best'.*'quick'"):
        preset_defaults("quick", InferenceConfig(), 20, True)
