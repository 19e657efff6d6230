"""The training loop: one process, or several under torchrun, on the CPU or CUDA, resumable at every checkpoint."""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..diffusion.schedules import make_schedule
from ..hub import save_weights
from ..models.slot_unet import SlotUNet, channels_last
from ..processes import join_processes
from .checkpoint import load_state, save_state
from .class_balance import class_shares, class_weights
from .config import TrainConfig
from .curves import CURVES_FILE, draw_curves
from .data import Batch, CropStream, Sample, collate, refined_crops
from .journal import LOG_FILE, Journal
from .objective import condition_of, first_crops, naming_loss, refinement_loss, training_logits
from .pictures import save_examples
from .processes import autocast, average_buffers, average_gradients, average_value, pick_device
from .sets import DataSet, read_data_set
from .start import new_network, read_sets, with_labels
from .user_segmentor import find_callable, out_of_fold, ready_made
from .validation import validate

PREDICTIONS_FOLDER = "predictions"
STATE_FILE, CONFIG_FILE = "state.safetensors", "train.json"


def train(config: TrainConfig) -> Path:
    """Trains a refiner and returns the folder of its best weights, ready for `DDPSRefiner.from_pretrained`.

    The run folder holds `train.json` (all settings), `log.jsonl` (loss and validation figures), `curves.svg` (the same
    as a picture), `examples/` (a picture per validation), `state.safetensors` (resumed from when the same settings are
    given again), `best/` and `last/`; with a user's segmentor also `predictions/`.

    Raises:
        InputError: unreadable data, or a run folder that another configuration wrote.
    """
    world = join_processes()
    device = pick_device(config.device)
    user = find_callable(config.segmentor or config.predictor) if config.segmentor or config.predictor else None
    sets, held_out = read_sets(config)
    config = with_labels(config, sets)
    stream = CropStream(sets, config)
    network, initialised = new_network(config)
    run = _Run(config, channels_last(network.to(device)), device, world, initialised)
    if network.config.classes:
        run.class_weights = class_weights(class_shares(sets[0]), config.class_balance).to(device)
    run.resume()
    if user is not None:
        sets, held_out = _predicted(user, config, sets, held_out, run)
        stream = CropStream(sets, config)
    loader = _loader(stream, config, run.step, world)
    torch.set_flush_denormal(True)
    try:
        for batch in loader:
            run.advance(batch)
            if run.step % config.validate_every == 0 or run.step == config.steps:
                run.validate(held_out)
            if run.step % config.save_every == 0 or run.step == config.steps:
                run.save()
            if run.step >= config.steps:
                break
    finally:
        torch.set_flush_denormal(False)
        if dist.is_initialized():
            dist.destroy_process_group()
    return run.folder / "best"


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        network: SlotUNet,
        device: torch.device,
        world: int,
        initialised: Collection[str] = (),
    ):
        self.config, self.network, self.device, self.world = config, network, device, world
        self.folder = config.run
        self.rank = dist.get_rank() if world > 1 else 0
        self.journal = Journal(self.folder, config.steps, self.rank)
        self.schedule = make_schedule(config.model.schedule.kind, config.model.schedule.num_steps)
        self.class_weights = torch.ones(256, device=device)
        groups = parameter_groups(network, config, initialised)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.step, self.best, self.loss = 0, -math.inf, 0.0
        self.started = time.monotonic()

    def resume(self) -> None:
        self.journal.keep_settings(self.folder / CONFIG_FILE, self.config.to_json())
        if (self.folder / STATE_FILE).is_file():
            facts = load_state(self.folder / STATE_FILE, self.network, self.average, self.optimizer)
            self.step, self.best, self.loss = int(facts["step"]), facts["best"], facts["loss"]
            self.journal.say(f"resumed at step {self.step}")

    def advance(self, batch: Batch) -> None:
        config, step = self.config, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step) * group["rate"]
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step * self.world + self.rank) % 2**63)
        self.network.train()
        on_device = batch.to(self.device)
        with autocast(config.amp, self.device):
            condition = condition_of(self.network, on_device)
            known, labels = condition.known, on_device.labels
            if known is not None:
                on_device, condition = first_crops(on_device, condition, refined_crops(config))
            logits = training_logits(self.network, on_device, self.schedule, config, generator, condition)
        loss = refinement_loss(logits, on_device, config, self.class_weights)
        if known is not None and labels is not None:
            taught = refined_crops(config) % config.batch_size
            named = naming_loss(known.logits[taught:], labels[taught:], self.class_weights)
            loss = loss + config.naming_weight * named
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.world > 1:
            average_gradients(self.network, self.world)
            average_buffers([self.network], self.world)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        # a single overflow must not poison the weights
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        value = average_value(loss, self.world)
        self.loss = value if self.step == 1 else 0.99 * self.loss + 0.01 * value
        if self.step % 20 == 0:
            seconds = round(time.monotonic() - self.started)
            self.journal.log({"step": self.step, "loss": round(self.loss, 5), "seconds": seconds})
            self.journal.progress(self.step, self.loss)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def validate(self, held_out: list[DataSet]) -> None:
        if self.rank == 0:
            found = validate(self.average, held_out, self.config, self.device)
            # with nothing to validate on, the latest weights are the best
            score = float(self.step) if found is None else found.score
            model = self.config.model
            if found is not None:
                save_examples(found.examples, self.step, self.folder)
                model = replace(model, inference=replace(model.inference, mix=found.mix, label_mix=found.label_mix))
            save_weights(self.folder / "last", model, self.average)
            if score > self.best:
                self.best = score
                save_weights(self.folder / "best", model, self.average)
            self.journal.log({"step": self.step, "validation": None if found is None else found.as_row()})
            draw_curves(self.folder / LOG_FILE, self.folder / CURVES_FILE)
            for row in () if found is None else found.reports:
                self.journal.say(
                    f"step {self.step} {row['set']}: mIoU {row['base_miou']:.2f} -> {row['miou']:.2f}, "
                    f"mBIoU {row['base_mbiou']:.2f} -> {row['mbiou']:.2f}"
                )
        if self.world > 1:
            dist.barrier()

    def save(self) -> None:
        if self.rank == 0:
            facts = {"step": self.step, "best": self.best, "loss": self.loss}
            save_state(self.folder / STATE_FILE, self.network, self.average, self.optimizer, facts)


def parameter_groups(network: nn.Module, config: TrainConfig, initialised: Collection[str]) -> list[dict[str, Any]]:
    """The optimizer's groups: without weight decay for vectors, and slower for weights that were trained before."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        rate = config.init_rate if name in initialised and len(initialised) < len(network.state_dict()) else 1.0
        groups.setdefault((config.weight_decay if parameter.ndim > 1 else 0.0, rate), []).append(parameter)
    return [{"params": group, "weight_decay": decay, "rate": rate} for (decay, rate), group in groups.items()]


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to 0 at the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    part = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


def _predicted(
    user: Callable[..., Any], config: TrainConfig, sets: list[DataSet], held_out: list[DataSet], run: _Run
) -> tuple[list[DataSet], list[DataSet]]:
    """The sets with what the user's segmentor predicts on them, which is made first where it is missing."""
    folder = config.run / PREDICTIONS_FOLDER
    if run.rank == 0:
        train_set = read_data_set(Path(config.data[0]), "train", None)
        # images that a set without a val split lent for validation are predicted with the others
        others = [("val", data) for data in held_out if data.pairs[0] not in train_set.pairs]
        if config.segmentor:
            out_of_fold(user, config.segmentor, train_set, others, config.folds, folder, run.journal)
        else:
            ready_made(user, config.predictor, [("train", train_set), *others], folder, run.journal)
    if run.world > 1:
        dist.barrier()
    return read_sets(config, folder)


def _loader(stream: CropStream, config: TrainConfig, start: int, world: int) -> torch.utils.data.DataLoader[Sample]:
    rank = dist.get_rank() if world > 1 else 0

    def indices() -> "list[list[int]]":
        def of(step: int) -> list[int]:
            first = (step * world + rank) * config.batch_size
            return list(range(first, first + config.batch_size))

        return [of(step) for step in range(start, config.steps)]

    return torch.utils.data.DataLoader(
        stream,
        batch_sampler=indices(),
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
    )
