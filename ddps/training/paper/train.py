"""Training by a recipe: single-step, then multi-step from it; one process or several under torchrun, resumable."""

import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...config import DDPSConfig, FeaturesNetwork
from ...errors import InputError
from ...hub import load_weights, save_weights
from ...models.paper import FeaturesDenoiser
from ...models.slot_unet import channels_last
from ...processes import join_processes
from ...refiner import build_network
from ..checkpoint import load_state, read_facts, save_state
from ..journal import Journal
from ..processes import autocast, average_buffers, average_gradients, pick_device
from .config import PaperRun
from .data import Batch, Crops, Split, collate, label_space, read_split
from .objective import Objective
from .segmentor import FrozenSegmentor, read_segmentor
from .stages import Stage, plan_stages
from .validation import validate

STATE_FILE, CONFIG_FILE = "state.safetensors", "train.json"


def train_recipe(run: PaperRun, segmentor: FrozenSegmentor | None = None) -> Path:
    """Trains by a recipe and returns the folder of the best weights, ready for `DDPSRefiner.from_pretrained`.

    The run's folder holds `train.json` (all settings), `log.jsonl`, `state.safetensors` (resumed from when the same
    settings are given again), `single_step/` (the weights that the multi-step stage started from), `best/` (highest
    mIoU on the validation split, of the last stage) and `last/`. All of these weights are running averages.

    Args:
        run: the settings.
        segmentor: any frozen network; None reads `run.backbone`. One that gives no `backbone_weights` makes a model
            that is called with `refine(image, features=...)`.

    Raises:
        InputError: unreadable data or weights, settings that do not fit them, or a run folder of other settings.
    """
    world = join_processes()
    try:
        device = pick_device(run.device)
        splits = read_split(run, "train"), read_split(run, "val")
        if segmentor is None:
            if not run.backbone:
                raise InputError("the folder of a frozen segmentor", "none", "--backbone DIR")
            segmentor = read_segmentor(Path(run.backbone), run.recipe.model)
        run = _complete(run, splits[0], segmentor)
        network = _new_network(run, segmentor)
        training = _Training(run, network, segmentor, splits, device, world)
        training.resume()
        return training.run_all()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class _Training:
    def __init__(
        self,
        run: PaperRun,
        network: FeaturesDenoiser,
        segmentor: FrozenSegmentor,
        splits: tuple[Split, Split],
        device: torch.device,
        world: int,
    ):
        self.run, self.recipe, self.device, self.world = run, run.recipe, device, world
        self.rank = dist.get_rank() if world > 1 else 0
        self.stages = plan_stages(self.recipe, bool(segmentor.fusion_weights()) or bool(run.init))
        self.network = channels_last(network.to(device))
        self.segmentor = segmentor.to(device).eval().requires_grad_(False)
        self.train_split, self.val_split = splits
        self.journal = Journal(run.folder, self.recipe.iterations, self.rank)
        classes = self.recipe.network.num_classes
        self.objective = Objective.of(
            self.recipe.objective, self.recipe.model.labels, self.recipe.model.schedule, classes
        )
        self.step, self.loss, self.started = 0, 0.0, time.monotonic()
        self._begin(0)

    def _begin(self, index: int) -> None:
        """Starts a stage from the weights as they are."""
        self.index, self.best = index, -math.inf
        stage, config = self.stage, self.recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            stage.prepare(self.network), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.moving = stage.moving(self.network)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    @property
    def stage(self) -> Stage:
        return self.stages[self.index]

    def resume(self) -> None:
        self.journal.keep_settings(self.run.folder / CONFIG_FILE, self.run.to_json())
        path = self.run.folder / STATE_FILE
        if path.is_file():
            self._begin(int(read_facts(path)["stage"]))
            facts = load_state(path, self.network, self.average, self.optimizer)
            self.step, self.best, self.loss = int(facts["step"]), facts["best"], facts["loss"]
            self.journal.say(f"resumed at step {self.step}")

    def run_all(self) -> Path:
        report = self.recipe.report
        torch.set_flush_denormal(True)
        try:
            for batch in self._loader():
                if self.step == self.stage.end:
                    self.network.load_state_dict(self.average)
                    self._begin(self.index + 1)
                self._advance(batch)
                ends = self.step == self.stage.end
                if self.step % report.validate_every == 0 or ends:
                    self._validate()
                if ends and self.stage.single_step:
                    self._save_weights("single_step")
                if self.step % report.save_every == 0 or ends:
                    self._save()
        finally:
            torch.set_flush_denormal(False)
        return self.run.folder / "best"

    def _advance(self, batch: Batch) -> None:
        stage, config = self.stage, self.recipe.optimizer
        rate = stage.learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = (self.run.seed * 1_000_003 + self.step * self.world + self.rank) % 2**63
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout knows only the global generator
        stage.set_modes(self.network)
        image, target, predicted = (
            part.to(self.device, non_blocking=True) for part in (batch.image, batch.target, batch.predicted)
        )
        with autocast(self.recipe.report.amp, self.device):
            with torch.no_grad():
                seen = self.segmentor(image)
            own = predicted if predicted.numel() else None if seen.logits is None else seen.logits.argmax(1)
            loss = self.objective.loss(
                self.network, self.network.condition(seen.features), target, own, stage.single_step, generator
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.world > 1:
            average_gradients(self.network, self.world)
            # a trained fusion's batch statistics, so that rank 0's checkpoint is every rank's
            average_buffers([self.network.convs, self.network.fusion_conv], self.world)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip or math.inf)
        # a single overflow must not poison the weights
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        value = float(loss.detach())
        self.loss = value if self.step == 1 else 0.99 * self.loss + 0.01 * value
        if self.step % self.recipe.report.log_every == 0:
            seconds = round(time.monotonic() - self.started)
            row = {"step": self.step, "stage": stage.name, "loss": round(self.loss, 5), "lr": rate, "seconds": seconds}
            self.journal.log(row)
            self.journal.progress(self.step, self.loss)

    @torch.no_grad()
    def _update_average(self) -> None:
        config = self.recipe.optimizer
        if (self.step - self.stage.start) % config.ema_every:
            return
        for name, value in self.network.state_dict().items():
            if name in self.moving:
                self.average[name].lerp_(value, config.ema_momentum)
            elif not value.is_floating_point():
                self.average[name].copy_(value)  # how many batches the statistics have seen

    def _validate(self) -> None:
        report = validate(
            self._model(),
            self._weights(),
            self.segmentor,
            self.val_split,
            self.recipe.report.validate_images,
            self.device,
            self.rank,
            self.world,
        )
        self._save_weights("last")
        if report.score > self.best:
            self.best = report.score
            self._save_weights("best")
        self.journal.log({"step": self.step, "stage": self.stage.name, "validation": asdict(report)})
        before = "" if report.base is None else f", segmentor alone {report.base['miou']:.2f}"
        figures = f"mIoU {report.refined['miou']:.2f}, mBIoU {report.refined['mbiou']:.2f}"
        self.journal.say(f"step {self.step} ({self.stage.name}): {figures}{before}")

    def _model(self) -> DDPSConfig:
        """The config of the weights of this stage."""
        model = self.recipe.model
        if self.stage.single_step:
            return replace(model, inference=replace(model.inference, steps=1, sampler="single"))
        return model

    def _weights(self) -> dict[str, Tensor]:
        backbone = self.segmentor.backbone_weights() if self.recipe.model.backbone is not None else {}
        return self.average | {f"backbone.{name}": value for name, value in backbone.items()}

    def _save_weights(self, name: str) -> None:
        if self.rank == 0:
            save_weights(self.run.folder / name, self._model(), self._weights())

    def _save(self) -> None:
        if self.rank == 0:
            facts = {"step": self.step, "stage": self.index, "best": self.best, "loss": self.loss}
            save_state(self.run.folder / STATE_FILE, self.network, self.average, self.optimizer, facts)

    def _loader(self) -> torch.utils.data.DataLoader[Batch]:
        size = self.recipe.optimizer.batch_size

        def of(step: int) -> list[int]:
            first = (step * self.world + self.rank) * size
            return list(range(first, first + size))

        return torch.utils.data.DataLoader(
            Crops(self.train_split, self.recipe.data, self.recipe.model.backbone, self.run.seed),
            batch_sampler=[of(step) for step in range(self.step, self.recipe.iterations)],
            collate_fn=collate,
            num_workers=self.run.workers,
            pin_memory=torch.cuda.is_available(),
        )


def _complete(run: PaperRun, split: Split, segmentor: FrozenSegmentor) -> PaperRun:
    """The run with the data set's label space and the backbone that its model will have.

    Raises:
        InputError: noise is to be added to predictions that nobody makes.
    """
    recipe, model = run.recipe, run.recipe.model
    if recipe.objective.noised == "segmentor" and not (segmentor.has_logits or split.predictions):
        raise InputError(
            "a segmentor's own predictions, for objective.noised=segmentor",
            "a segmentor without a head over these classes",
            "--predictions DIR, or a SegFormer of transformers with a head of these classes",
        )
    backbone = model.backbone if segmentor.backbone_weights() else None
    model = replace(model, labels=label_space(model.labels, split.data), backbone=backbone)
    return replace(run, recipe=replace(recipe, model=model))


def _new_network(run: PaperRun, segmentor: FrozenSegmentor) -> FeaturesDenoiser:
    """The denoiser without its backbone: random, or of `run.init`, with the segmentor's fusion where it has one."""
    model = run.recipe.model
    torch.manual_seed(run.seed)
    network = FeaturesDenoiser(run.recipe.network, model.schedule)
    if run.init:
        found, weights, _ = load_weights(run.init, build_network)
        same = found.network == model.network and found.schedule.kernel == model.schedule.kernel
        if not isinstance(found.network, FeaturesNetwork) or not same:
            raise InputError(f"the network and the kernel of {run.init}", "others in the recipe", "the same in both")
        # The recipe's own schedule stays, so that several of them can be tried from one single-step stage.
        taken = {k: v for k, v in weights.items() if not k.startswith(("backbone.", "log_"))}
        network.load_state_dict(network.state_dict() | taken)
    elif fusion := segmentor.fusion_weights():
        network.load_state_dict(network.state_dict() | fusion)
    return network
