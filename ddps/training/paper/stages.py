"""What each of the two stages trains, at which learning rate, and what it leaves as it is."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ...errors import InputError
from ...models.paper import FeaturesDenoiser
from .config import OptimizerConfig, Recipe, StageConfig
from .segmentor import FUSION

EMBEDDING = ("embed.",)


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Args:
        name: "single_step" or "multi_step".
        config: its settings.
        start: iterations before it.
        frozen: beginnings of the names of what it does not train.
    """

    name: Literal["single_step", "multi_step"]
    config: StageConfig
    start: int
    frozen: tuple[str, ...]

    @property
    def end(self) -> int:
        """Iterations up to its end."""
        return self.start + self.config.iterations

    @property
    def single_step(self) -> bool:
        return self.name == "single_step"

    def is_frozen(self, name: str) -> bool:
        """Whether a tensor of the denoiser stays as it is."""
        return name.startswith(self.frozen)

    def prepare(self, network: FeaturesDenoiser) -> list[nn.Parameter]:
        """Sets what asks for gradients, and returns it."""
        trained = []
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not self.is_frozen(name))
            if parameter.requires_grad:
                trained.append(parameter)
        return trained

    def set_modes(self, network: FeaturesDenoiser) -> None:
        """Training mode, except for what is frozen: its batch statistics must not move either."""
        network.train()
        for name, module in network.named_children():
            if self.is_frozen(f"{name}."):
                module.eval()

    def moving(self, network: FeaturesDenoiser) -> set[str]:
        """Names of all that this stage changes: parameters, and batch statistics of a trained fusion."""
        names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        for name, buffer in network.named_buffers():
            if name.startswith(FUSION) and not self.is_frozen(name) and buffer.is_floating_point():
                names.add(name)
        return names

    def learning_rate(self, config: OptimizerConfig, step: int) -> float:
        """Linear warm-up, then halved every `halve_every` iterations of this stage.

        Args:
            config: names the rates.
            step: iterations of the whole run so far.
        """
        done = step - self.start
        rate = config.lr * 0.5 ** (done // self.config.halve_every)
        if done < config.warmup:
            return config.warmup_lr + (rate - config.warmup_lr) * done / config.warmup
        return rate


def plan_stages(recipe: Recipe, fusion_given: bool) -> list[Stage]:
    """The stages of a recipe that have iterations, in order.

    Args:
        recipe: the settings.
        fusion_given: whether the fusion comes with trained weights.

    Raises:
        InputError: a random fusion would be frozen.
    """
    stages = []
    trained = fusion_given
    settings: list[tuple[Literal["single_step", "multi_step"], StageConfig, int]] = [
        ("single_step", recipe.single_step, 0),
        ("multi_step", recipe.multi_step, recipe.single_step.iterations),
    ]
    for name, config, start in settings:
        if not config.iterations:
            continue
        frozen = config.fusion == "frozen" or (config.fusion == "frozen_if_given" and fusion_given)
        if frozen and not trained:
            raise InputError(
                f"trained weights of the fusion, which {name} freezes",
                "a segmentor without them",
                f"{name}.fusion=trained, or a backbone folder of a whole ddps model",
            )
        trained = True
        stages.append(
            Stage(name, config, start, (FUSION if frozen else ()) + (EMBEDDING if config.embedding == "frozen" else ()))
        )
    return stages
