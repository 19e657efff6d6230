"""Settings for a refiner of one's own classes that starts from other weights: an hour on two cores, not a day."""

from typing import Any

from .config import TrainConfig
from .start import model_of

SETTINGS: dict[str, Any] = {
    "steps": 1200,
    "crop": 256,
    "warmup": 50,
    "ema": 0.99,
    "real_share": 0.75,
    "label_map_share": 0.25,
    "validate_every": 200,
}
"""Where they differ from `TrainConfig`'s own, which are those of the universal weights' training."""


def own_classes(data: str, out: str, init: str = "universal", **settings: Any) -> TrainConfig:
    """The settings of a run over one data set that starts from other weights.

    Args:
        data, out: folders of the data set and of the run.
        init: weights to start from.
        settings: of `TrainConfig`, in place of those in `SETTINGS`, of its defaults and of the weights' own config.

    Raises:
        InputError: no such weights, or a setting out of bounds.
    """
    model = settings.pop("model", None) or model_of(init)
    return TrainConfig(data=(data,), out=out, init=init, model=model, **{**SETTINGS, **settings})
