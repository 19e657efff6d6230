"""The paper's findings, measured again: what is noised, which noise, which schedule, which sampler, how many steps.

For one data set, a small segmentor is trained and frozen; then, for every seed, the paper's denoiser on its features:
a single-step stage, and from it, with one budget for all, one multi-step stage per variant. Every variant is measured
on test images. All work is kept in WORK, and what is there is not done again:

    python examples/findings.py DATA/camvid WORK/camvid --predictions PREDICTIONS
    python examples/findings.py DATA/dsb2018_nuclei WORK/dsb2018_nuclei --crop 128

PREDICTIONS holds {train,val,test}/<stem>.png of another segmentor, which the variant "segmentor" is trained with;
without, it takes those of the frozen one. `examples/findings_report.py` makes the table and the plot.
"""

import argparse
import functools
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from out_of_fold import KINDS, load_pairs, normalise, train, unit
from safetensors.torch import load_file
from torch import Tensor, nn

from ddps import DDPSRefiner
from ddps.atomic import atomic_write
from ddps.cli.report import write_text
from ddps.config import DDPSConfig, FeaturesNetwork, InferenceConfig, LabelSpace, ScheduleConfig
from ddps.datasets import list_pairs
from ddps.devices import has_native_bfloat16
from ddps.diffusion import samplers
from ddps.diffusion.as_released import posterior_as_released
from ddps.inputs import load_image
from ddps.metrics import SegmentationMetrics
from ddps.models.fusion import FeatureFusion
from ddps.models.paper_inference import StepNetwork
from ddps.predictions import load_prediction, read_prediction_file
from ddps.slots import slot_kernel
from ddps.tensor_file import write_tensors
from ddps.training.paper import PaperRun, train_recipe
from ddps.training.paper.config import DataConfig, ObjectiveConfig, OptimizerConfig, Recipe, ReportConfig, StageConfig
from ddps.training.paper.segmentor import FrozenSegmentor, Seen

Chain = tuple[str, int, float]  # sampler, steps, guidance

STEPS = 20
WIDTHS, CHANNELS = (32, 64, 96, 128), 48
FEW, CURVE = (1, 5, 20), (1, 2, 3, 5, 10, 20)


@dataclass(frozen=True)
class Variant:
    """One network: how it is trained, and which chains it is measured with."""

    noised: str = "first_prediction"
    kernel: str = "uniform"
    schedule: str = "linear"
    condition_dropout: float = 0.0
    single_step: bool = False
    chains: tuple[Chain, ...] = field(default_factory=lambda: tuple(("free", s, 0.0) for s in FEW))


STRICT = tuple((sampler, steps, 0.0) for sampler in ("posterior", "released") for steps in (5, 20))
VARIANTS = {
    "single_step": Variant(single_step=True, chains=(("free", 1, 0.0),)),
    "first_prediction": Variant(chains=(*(("free", s, 0.0) for s in CURVE), *STRICT)),
    "ground_truth": Variant("ground_truth", chains=(*(("free", s, 0.0) for s in FEW), *STRICT)),
    "segmentor": Variant("segmentor"),
    "absorbing": Variant(kernel="absorbing"),
    "cosine": Variant(schedule="cosine"),
    "dropout": Variant(condition_dropout=0.15, chains=tuple(("free", 5, g) for g in (0.0, 0.5, 1.0, 2.0))),
}


class FusedPyramid(nn.Module):
    """Features at strides 4 to 32, fused as SegFormer's head does, in the denoiser's own form; logits at stride 4."""

    def __init__(self, classes: int):
        super().__init__()
        stages = zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, strict=True)
        self.stem = unit(3, WIDTHS[0], 2)
        self.stages = nn.ModuleList(nn.Sequential(unit(a, b, 2), unit(b, b), unit(b, b)) for a, b in stages)
        self.fusion = FeatureFusion(WIDTHS, CHANNELS)
        self.head = nn.Conv2d(CHANNELS, classes, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fusion.fuse(self.features(x)))


class FrozenPyramid(FrozenSegmentor):
    """The small network, frozen; its fusion is the denoiser's, as in the paper."""

    has_logits = True

    def __init__(self, classes: int):
        super().__init__()
        self.network = FusedPyramid(classes)

    def fusion_weights(self) -> dict[str, Tensor]:
        return dict(self.network.fusion.state_dict())

    def forward(self, image: Tensor) -> Seen:
        features = self.network.features(normalise(image * 255))
        return Seen(features, self.network.head(self.network.fusion.fuse(features)))


def frozen_segmentor(args: argparse.Namespace, classes: int) -> FrozenPyramid:
    """Trained once for all runs of a data set."""
    segmentor, path = FrozenPyramid(classes), args.work / "segmentor.safetensors"
    if not path.is_file():
        pairs = load_pairs(args.data / "train", np.arange(256, dtype=np.uint8))
        KINDS["fused"] = FusedPyramid
        segmentor.network = train("fused", classes, list(pairs.values()), args.minutes, 256, 0)
        args.work.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, overwrite=True) as file:
            write_tensors(file, segmentor.state_dict())
    segmentor.load_state_dict(load_file(path))
    return segmentor.eval().requires_grad_(False)


def recipe(args: argparse.Namespace, name: str, variant: Variant, classes: int, stages: tuple[int, int]) -> Recipe:
    """The paper's recipe, shortened: iterations of the (single-step, multi-step) stage, and rates to match."""
    model = DDPSConfig(
        name=f"findings-{name}",
        labels=LabelSpace(num_classes=classes),
        schedule=ScheduleConfig(kind=variant.schedule, num_steps=STEPS, kernel=variant.kernel),
        network=FeaturesNetwork(
            in_channels=WIDTHS, channels=CHANNELS, dim=args.dim, out_dim=args.dim, num_classes=classes
        ),
        inference=InferenceConfig(steps=STEPS, mix=1.0),
    )
    halve = max(1, max(stages) // 3)
    return Recipe(
        name=f"findings-{name}",
        notes=(),
        model=model,
        data=DataConfig("folders", (), (0.75, 1.5), args.crop, 0.95, 0.5, True),
        objective=ObjectiveConfig(variant.noised, variant.condition_dropout),
        single_step=StageConfig(stages[0], halve, "frozen", "frozen"),
        multi_step=StageConfig(stages[1], halve, "frozen", "frozen"),
        optimizer=OptimizerConfig(args.batch_size, 1.5e-3, (0.9, 0.96), 0.045, 20, 1e-6, 1.0, 0.03, 1),
        report=ReportConfig(50, 10**6, 1, 50, "auto"),
    )


def trained(args: argparse.Namespace, name: str, seed: int, segmentor: FrozenPyramid, classes: int) -> Path:
    """The folder of a variant's weights; their single-step stage is shared between those of one kernel."""
    variant = VARIANTS[name]
    runs = args.work / f"seed{seed}"
    first = runs / f"first_{variant.kernel}"

    def run(out: Path, label: str, what: Variant, stages: tuple[int, int], init: str) -> None:
        if (out / "last" / "model.safetensors").is_file():
            return
        predictions = str(args.predictions) if what.noised == "segmentor" and args.predictions else ""
        settings = PaperRun(
            recipe(args, label, what, classes, stages),
            str(args.data), str(out), predictions=predictions, init=init, seed=seed, device=args.device,
        )  # fmt: skip
        started = time.monotonic()
        train_recipe(settings, segmentor)
        print(f"{args.data.name} seed {seed} {label}: {time.monotonic() - started:.0f} s", flush=True)

    run(first, first.name, Variant(kernel=variant.kernel), (args.first_iterations, 0), "")
    stages = (args.iterations, 0) if variant.single_step else (0, args.iterations)
    run(runs / name, name, variant, stages, str(first / "single_step"))
    return runs / name / "last"


def labels_of(refiner: DDPSRefiner, steps: StepNetwork, condition: Tensor, chain: Chain, seed: int) -> Tensor:
    """(4h, 4w) int64 answer of one chain from pure noise on a (1, C, h, w) condition."""
    sampler, count, guidance = chain
    kernel = slot_kernel(refiner.config.schedule, refiner.network.network.num_classes)
    run = {"free": samplers.free, "posterior": samplers.posterior, "released": posterior_as_released}[sampler]
    height, width = condition.shape[-2:]
    generators = [torch.Generator().manual_seed(seed)]
    logits = run(steps.bind(condition, guidance), None, kernel, refiner.schedule, count, generators,
                 shape=(1, height, width), device=condition.device)  # fmt: skip
    size = (4 * height, 4 * width)
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)[0].argmax(0)


def measure(args: argparse.Namespace, weights: Path, name: str, seed: int, segmentor: FrozenPyramid) -> list[dict]:
    """One row of figures per chain of a variant, over the test images."""
    refiner = DDPSRefiner.from_pretrained(weights, device=args.device)
    data = list_pairs(args.data, "test", "folders")
    pairs = data.pairs[:: max(1, len(data.pairs) // args.images)][: args.images]
    chains = VARIANTS[name].chains
    totals = {chain: SegmentationMetrics(data.num_classes, data.ignore_index) for chain in chains}
    device = next(refiner.network.parameters()).device
    steps = StepNetwork(refiner.network, range(STEPS), torch.bfloat16 if has_native_bfloat16(device) else None)
    for number, (image_path, mask_path) in enumerate(pairs):
        image, target = load_image(image_path)[None], data.read_mask(mask_path)
        with torch.no_grad():
            condition = refiner.network.condition(segmentor(image.to(device)).features)
        for chain, total in totals.items():
            answer = labels_of(refiner, steps, condition, chain, 1000 * seed + number)
            total.update(answer[: target.shape[0], : target.shape[1]].cpu().numpy(), target)
    return [
        {"sampler": s, "steps": n, "guidance": g, "images": len(pairs)} | total.as_dict()
        for (s, n, g), total in totals.items()
    ]


@torch.no_grad()
def measure_base(args: argparse.Namespace, segmentor: FrozenPyramid) -> list[dict]:
    """The frozen segmentor alone, and the one whose predictions were handed in."""
    data = list_pairs(args.data, "test", "folders")
    pairs = data.pairs[:: max(1, len(data.pairs) // args.images)][: args.images]
    totals = {"frozen": SegmentationMetrics(data.num_classes, data.ignore_index)}
    if args.predictions:
        totals["predictions"] = SegmentationMetrics(data.num_classes, data.ignore_index)
    for image_path, mask_path in pairs:
        target = data.read_mask(mask_path)
        logits = segmentor(load_image(image_path)[None].to(args.device)).logits
        size = (4 * logits.shape[-2], 4 * logits.shape[-1])
        own = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(0).cpu().numpy()
        totals["frozen"].update(own[: target.shape[0], : target.shape[1]], target)
        if args.predictions:
            values, kind = read_prediction_file(args.predictions / "test" / f"{image_path.stem}.png")
            given = load_prediction(values, target.shape, kind, data.ignore_index, data.num_classes)
            totals["predictions"].update(given.argmax().numpy(), target)
    return [{"segmentor": name, "images": len(pairs)} | total.as_dict() for name, total in totals.items()]


def keep(path: Path, make: functools.partial) -> None:
    """Writes what `make` returns, unless it is there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(json.dumps(make(), indent=1) + "\n", path, overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with {train,val,test}/{images,masks} and classes.json")
    parser.add_argument("work", type=Path)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=6, help="training time of the frozen segmentor")
    parser.add_argument("--first-iterations", type=int, default=600, help="of the shared single-step stage")
    parser.add_argument("--iterations", type=int, default=200, help="of each variant after it")
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--dim", type=int, default=32, help="width of the U-Net")
    parser.add_argument("--images", type=int, default=12, help="test images, spread evenly")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    classes = list_pairs(args.data, "train", "folders").num_classes
    segmentor = frozen_segmentor(args, classes).to(args.device)
    keep(args.work / "measured" / "base.json", functools.partial(measure_base, args, segmentor))
    for seed in args.seeds:
        for name in args.variants:
            weights = trained(args, name, seed, segmentor, classes)
            path = args.work / "measured" / f"{name}_{seed}.json"
            keep(path, functools.partial(measure, args, weights, name, seed, segmentor))
            print(f"{args.data.name} seed {seed} {name}: measured", flush=True)


if __name__ == "__main__":
    main()
