"""How one call of `refine` runs: the user's keywords over the model's defaults, checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .config import InferenceConfig
from .diffusion.samplers import Callback
from .errors import InputError


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
    return_trajectory: bool
    callback: Callback | None
    after: tuple[int, ...] = ()

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
    ) -> "Settings":
        """Fills in the model's defaults.

        Args:
            defaults: of the model.
            most_steps: T of the schedule.

        Raises:
            InputError: a value out of its range, or an unknown sampler.
        """
        sampler = defaults.sampler if sampler is None else sampler
        if sampler not in ("free", "posterior", "single"):
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
        steps = 1 if sampler == "single" else steps
        whole = all(isinstance(number, int) and 1 <= number <= steps for number in after)
        if not whole or any(one >= other for one, other in pairwise(after)):
            expected = f"after as increasing numbers of steps from 1 to {steps}"
            raise InputError(expected, repr(tuple(after))[:60], f"after=(1, {steps})" if steps > 1 else "after=(1,)")
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
            return_trajectory=return_trajectory,
            callback=callback,
            after=tuple(after),
        )
