"""How one call of `refine` runs: the user's keywords over the model's defaults, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from .config import InferenceConfig
from .diffusion.samplers import Callback
from .errors import InputError

Preset: TypeAlias = Literal["fast", "default", "best"]
BEST_WORKING_SIZE = 720
FAST_SLOTS = 7


def preset_defaults(preset: str, defaults: InferenceConfig, most_steps: int, plug_in: bool) -> InferenceConfig:
    """What a preset makes of a model's defaults.

    Args:
        preset: "fast": one pass, small images at their own size, at most 7 slots in a tile; "default": the model's own;
            "best": images enlarged to a short side of 720 px by a plug-in refiner, all T steps of one of the paper's
            models.
        defaults: of the model.
        most_steps: T of the schedule.
        plug_in: whether the model refines predictions, rather than going from features to a mask.

    Raises:
        InputError: no such preset.
    """
    if not isinstance(preset, str) or preset not in get_args(Preset):
        raise InputError("preset 'fast', 'default' or 'best'", repr(preset)[:60], "one of these")
    if preset == "fast":
        return replace(defaults, steps=1, sampler="single", working_size=0)
    if preset == "best":
        if plug_in:
            return replace(defaults, working_size=max(BEST_WORKING_SIZE, defaults.working_size))
        return replace(defaults, steps=most_steps)
    return defaults


@dataclass(frozen=True)
class Settings:
    """What `DDPSRefiner.refine` was asked for; see there."""

    steps: int
    sampler: str
    seed: int
    num_samples: int
    guidance_scale: float
    tile: int
    overlap: int
    mix: float
    label_mix: float
    working_size: int
    return_trajectory: bool
    callback: Callback | None
    after: tuple[int, ...] = ()
    early_exit: float = 0.0
    most_slots: int | None = None

    @classmethod
    def over(
        cls,
        defaults: InferenceConfig,
        most_steps: int,
        *,
        steps: int | None,
        sampler: str | None,
        seed: int,
        num_samples: int,
        guidance_scale: float,
        tile: int | None,
        return_trajectory: bool,
        callback: Callback | None,
        after: Sequence[int] = (),
        early_exit: float = 0.0,
        preset: str = "default",
        plug_in: bool = True,
    ) -> "Settings":
        """Fills in the model's defaults.

        Args:
            defaults: of the model.
            most_steps: T of the schedule.
            preset, plug_in: see `preset_defaults`; what is given beside a preset goes before it.

        Raises:
            InputError: a value out of its range, or an unknown sampler.
        """
        defaults = preset_defaults(preset, defaults, most_steps, plug_in)
        if sampler is None:
            # more steps than one, asked for beside a preset of one pass, are those of the usual sampler
            sampler = "free" if preset == "fast" and steps not in (None, 1) else defaults.sampler
        if not isinstance(sampler, str) or sampler not in ("free", "posterior", "single"):
            raise InputError("sampler 'free', 'posterior' or 'single'", repr(sampler)[:60], "one of these")
        steps = min(defaults.steps, most_steps) if steps is None else steps
        tile = defaults.tile if tile is None else tile
        for name, value, low, high in (
            ("steps", steps, 1, most_steps),
            ("num_samples", num_samples, 1, 4096),
            ("tile", tile, 64, 8192),
            ("seed", seed, 0, 2**63 - 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"{name} as a whole number from {low} to {high}", repr(value)[:60], "a number within")
        number = isinstance(guidance_scale, int | float) and not isinstance(guidance_scale, bool)
        if not number or not 0 <= guidance_scale <= 100:
            raise InputError("guidance_scale from 0 to 100", repr(guidance_scale)[:60], "0 for none")
        share = isinstance(early_exit, int | float) and not isinstance(early_exit, bool)
        if not share or not 0 <= early_exit < 1:
            raise InputError("early_exit from 0 to below 1", repr(early_exit)[:60], "0 for all steps, or 0.001")
        steps = 1 if sampler == "single" else steps
        whole = isinstance(after, list | tuple | range) and all(
            isinstance(number, int) and 1 <= number <= steps for number in after
        )
        if not whole or any(one >= other for one, other in pairwise(after)):
            expected = f"after as increasing numbers of steps from 1 to {steps}"
            raise InputError(expected, repr(after)[:60], f"after=(1, {steps})" if steps > 1 else "after=(1,)")
        return cls(
            steps=steps,
            sampler=sampler,
            seed=seed,
            num_samples=num_samples,
            guidance_scale=float(guidance_scale),
            tile=tile,
            overlap=min(defaults.overlap, tile // 4),
            mix=defaults.mix,
            label_mix=defaults.label_mix,
            working_size=defaults.working_size,
            return_trajectory=return_trajectory,
            callback=callback,
            after=tuple(after),
            early_exit=float(early_exit),
            most_slots=FAST_SLOTS if preset == "fast" else None,
        )
