"""The training loop: one process, or several under torchrun, on the CPU or CUDA, resumable at every checkpoint."""

import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..config import LabelSpace, LogitsNetwork
from ..diffusion.schedules import make_schedule
from ..errors import InputError
from ..hub import load_weights, save_weights
from ..models.slot_unet import SlotUNet, channels_last
from .checkpoint import load_state, save_state
from .config import TrainConfig
from .data import Batch, CropStream, DataSet, Sample, collate, read_data_set
from .journal import Journal
from .objective import refinement_loss, training_logits
from .processes import autocast, average_gradients, join_processes, pick_device
from .validation import validate

STATE_FILE, CONFIG_FILE = "state.safetensors", "train.json"


def train(config: TrainConfig) -> Path:
    """Trains a refiner and returns the folder of its best weights, ready for `DDPSRefiner.from_pretrained`.

    The run folder holds `train.json` (all settings), `log.jsonl` (loss and validation figures), `state.safetensors`
    (resumed from when the same settings are given again), `best/` and `last/`.

    Raises:
        InputError: unreadable data, or a run folder that another configuration wrote.
    """
    world = join_processes()
    device = pick_device(config.device)
    sets, held_out = _read_sets(config)
    config = _with_labels(config, sets)
    stream = CropStream(sets, config)
    network = channels_last(_new_network(config).to(device))
    run = _Run(config, network, device, world)
    run.resume()
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
    def __init__(self, config: TrainConfig, network: SlotUNet, device: torch.device, world: int):
        self.config, self.network, self.device, self.world = config, network, device, world
        self.folder = config.run
        self.rank = dist.get_rank() if world > 1 else 0
        self.journal = Journal(self.folder, config.steps, self.rank)
        self.schedule = make_schedule(config.model.schedule.kind, config.model.schedule.num_steps)
        decay: list[Tensor] = []
        no_decay: list[Tensor] = []
        for parameter in network.parameters():
            (decay if parameter.ndim > 1 else no_decay).append(parameter)
        groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
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
            group["lr"] = learning_rate(config, step)
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step * self.world + self.rank) % 2**63)
        self.network.train()
        on_device = Batch(**{k: v.to(self.device, non_blocking=True) for k, v in vars(batch).items()})
        with autocast(config.amp, self.device):
            logits = training_logits(self.network, on_device, self.schedule, config, generator)
        loss = refinement_loss(logits, on_device, config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.world > 1:
            average_gradients(self.network, self.world)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        # a single overflow must not poison the weights
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        value = float(loss.detach())
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
                model = replace(model, inference=replace(model.inference, mix=found.mix, label_mix=found.mix))
            save_weights(self.folder / "last", model, self.average)
            if score > self.best:
                self.best = score
                save_weights(self.folder / "best", model, self.average)
            self.journal.log({"step": self.step, "validation": None if found is None else asdict(found)})
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


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to 0 at the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    part = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


def _read_sets(config: TrainConfig) -> tuple[list[DataSet], list[DataSet]]:
    root = Path(config.predictions) if config.predictions else None
    several = len(config.data) > 1
    folders = [Path(d) for d in config.data]
    sets = [read_data_set(f, "train", root, several) for f in folders]
    held_out = [read_data_set(f, "val", root, several) for f in folders if (f / "val" / "images").is_dir()]
    return sets, held_out


def _with_labels(config: TrainConfig, sets: list[DataSet]) -> TrainConfig:
    """A refiner for one data set answers in its label space; one for several takes any classes."""
    merged = any(source.merge is not None for source in sets[0].sources)
    if len(sets) > 1 or merged or config.model.labels.num_classes is not None:
        return config
    data = sets[0]
    names = data.names if len(data.names) == data.num_classes else ()
    labels = LabelSpace(data.num_classes, names, ignore_index=data.ignore_index)
    return replace(config, model=replace(config.model, labels=labels))


def _new_network(config: TrainConfig) -> SlotUNet:
    if not isinstance(config.model.network, LogitsNetwork):
        raise InputError(
            "a network conditioned on logits", config.model.network.conditioning, "network.conditioning=logits"
        )
    torch.manual_seed(config.seed)
    network = SlotUNet(config.model.network)
    if config.init:
        found, weights, _ = load_weights(config.init, lambda c: SlotUNet(c.network))  # type: ignore[arg-type]
        if found.network != config.model.network:
            raise InputError(f"the network of {config.init}", "other widths", "leaving the network's settings out")
        network.load_state_dict(weights)
    return network


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
