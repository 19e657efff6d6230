"""How long a chain takes: the paper's network as it is written down, and as it runs here; the universal refiner.

Weights and inputs are random: neither changes the time. What is compared does the same: both chains of the paper's
network are given the same noise, so that their labels can be held against each other. The released code draws noise
from K-channel log-probabilities, which gives other numbers of the same distribution; that is timed by itself.
"""

import math
import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import FeaturesNetwork, ScheduleConfig
from .diffusion import Denoiser, Step, UniformKernel, free, make_schedule, network_steps, noise_index
from .models.paper import FeaturesDenoiser
from .models.paper_inference import StepNetwork
from .models.slot_unet import channels_last
from .refiner import DDPSRefiner
from .settings import Preset
from .speed_machine import Run, Spread, count_flops, interleaved, matmul, peak_memory

STRIDE = 4


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        size: (H, W) of the image in pixels; the paper's masks are at a quarter of it, rounded up.
        classes: K.
        steps: passes of the network; None for what the universal model's preset says.
        batch: images of a chain or a call.
        dtype: torch.float32, or a lower one, which the naive chain gets by autocast.
        device: where it runs.
        dim: width of the paper's U-Net, which has three levels of it and 256 channels of condition.
        shown: for the universal model, how many of the K classes are likely anywhere in the picture.
        preset: of the universal model, see `DDPSRefiner.refine`.
        compiled: whether ours is compiled, with CUDA graphs on CUDA; preparing then is binding only.
    """

    size: tuple[int, int]
    classes: int
    steps: int | None
    batch: int
    dtype: torch.dtype
    device: torch.device
    dim: int = 256
    shown: int = 8
    preset: Preset = "default"
    compiled: bool = False


@dataclass(frozen=True)
class Timing:
    """One thing that was timed.

    Attributes:
        seconds: of one chain, or of one call.
        flops: floating-point operations, see `count_flops`; None where it has none that are counted.
        memory: bytes, see `peak_memory`.
    """

    seconds: Spread
    flops: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Speed:
    """The figures of one case.

    Attributes:
        case: what was timed.
        timings: name → figures. Of the paper's network "naive" and "ours" are whole chains with the same noise, ours
            with all that it prepares, and "prepare" is that part of it; "gumbel noise" and "our noise" are the draws of
            such a chain alone. Of the universal model "refine" is one call.
        peak: operations per second of the fastest matrix product, in the same rounds and the same dtype.
        speedup: median over the rounds of naive / ours.
        speedup_as_released: the same of (naive - our noise + gumbel noise) / ours, what the released code spends.
        agreement: percent of the pixels with the same label in both chains, over all steps.
    """

    case: Case
    timings: dict[str, Timing]
    peak: float
    speedup: float | None = None
    speedup_as_released: float | None = None
    agreement: float | None = None


class PaperChains:
    """The paper's network of a case, with random weights, and both ways to run a chain of it."""

    def __init__(self, case: Case):
        assert case.steps is not None
        torch.manual_seed(0)
        sizes = FeaturesNetwork(in_channels=(1,), dim=case.dim, num_classes=case.classes)
        schedule = ScheduleConfig(num_steps=max(20, case.steps))
        network = FeaturesDenoiser(sizes, schedule).eval().requires_grad_(False)
        self.case, self.network = case, channels_last(network.to(case.device))
        self.schedule = make_schedule(schedule.kind, schedule.num_steps)
        self.times = network_steps(schedule.num_steps, case.steps)
        self.kernel = UniformKernel(case.classes)
        self.shape = (case.batch, -(-case.size[0] // STRIDE), -(-case.size[1] // STRIDE))
        condition = torch.randn(case.batch, sizes.channels, *self.shape[1:]).relu_()
        self.condition = condition.to(case.device, memory_format=torch.channels_last)
        self.labels: dict[str, list[Tensor]] = {"naive": [], "ours": []}
        self._compiled: StepNetwork | None = None

    def naive(self) -> None:
        """`FeaturesDenoiser.forward` at every step."""
        lower = self.case.dtype != torch.float32
        with torch.no_grad(), torch.autocast(self.case.device.type, self.case.dtype, enabled=lower):
            self._chain("naive", lambda mask, i: self.network(mask, i, self.condition))

    def prepare(self) -> Denoiser:
        """`StepNetwork`, folded and bound."""
        if not self.case.compiled:
            return StepNetwork(self.network, self.times, self.case.dtype).bind(self.condition)
        if self._compiled is None:
            mode = "reduce-overhead" if self.case.device.type == "cuda" else None
            self._compiled = StepNetwork(self.network, self.times, self.case.dtype).compile_steps(mode=mode)
        return self._compiled.bind(self.condition)

    def ours(self) -> None:
        """The same chain with it."""
        self._chain("ours", self.prepare())

    def our_noise(self) -> None:
        """The draws of a chain: pure noise, then one noised mask for every further step."""
        generators = self._generators()
        mask = self.kernel.prior(self.shape, generators, self.case.device)
        for alpha_bar in self._alpha_bars()[1:]:
            mask = self.kernel.sample(mask, alpha_bar, generators)

    def gumbel_noise(self) -> None:
        """As many draws, as the released code makes them."""
        mask = torch.zeros(self.shape, dtype=torch.int64, device=self.case.device)
        for alpha_bar in self._alpha_bars():
            mask = gumbel_noise(mask, alpha_bar, self.case.classes)

    def agreement(self) -> float:
        """Percent of the pixels with the same label in the last two chains, over all steps."""
        naive, ours = (torch.stack(self.labels[name]) for name in ("naive", "ours"))
        return 100 * float((naive == ours).double().mean())

    def _chain(self, name: str, denoiser: Denoiser) -> None:
        labels: list[Tensor] = []

        def keep(step: Step) -> None:
            labels.append(step.logits.argmax(1))

        free(
            denoiser,
            None,
            self.kernel,
            self.schedule,
            self.times,
            self._generators(),
            keep,
            shape=self.shape,
            device=self.case.device,
        )
        self.labels[name] = labels

    def _generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(image) for image in range(self.case.batch)]

    def _alpha_bars(self) -> list[float]:
        steps = self.schedule.num_steps
        return [float(self.schedule.alpha_bar[noise_index(steps, i)]) for i in self.times]


def gumbel_noise(x0: Tensor, alpha_bar: float, num_classes: int) -> Tensor:
    """Draws x_n from q(x_n | x_0) = ᾱ_n·[x_n = x_0] + (1 - ᾱ_n)/K as the released code does, in O(K) per pixel.

    log q for all K classes, plus a Gumbel number each; the largest is the draw. `UniformKernel.sample` draws from the
    same distribution with one uniform number and one class per pixel.

    Args:
        x0: (B, h, w) int64 classes.
        alpha_bar: ᾱ_n in (0, 1).
        num_classes: K.

    Returns:
        (B, h, w) int64.
    """
    log_x0 = F.one_hot(x0, num_classes).movedim(-1, 1).float().clamp(min=1e-30).log()
    noise = torch.full_like(log_x0, math.log((1 - alpha_bar) / num_classes))
    log_probs = torch.logaddexp(log_x0 + math.log(alpha_bar), noise)
    gumbel = -(-(torch.rand_like(log_probs) + 1e-30).log() + 1e-30).log()
    return (log_probs + gumbel).argmax(1)


def measure_paper(case: Case, repeats: int) -> Speed:
    """Times the paper's network in both forms, in turn.

    Args:
        case: with a number of steps.
        repeats: rounds, after one of each that is not timed.
    """
    device = case.device
    chains = PaperChains(case)
    product, product_flops = matmul(device, case.dtype)
    flops = {name: count_flops(run) for name, run in (("naive", chains.naive), ("ours", chains.ours))}
    agreement = chains.agreement()
    memory = {name: peak_memory(make, (case,), device) for name, make in (("naive", _naive), ("ours", _ours))}
    runs: dict[str, Run] = {
        "naive": chains.naive,
        "ours": chains.ours,
        "prepare": chains.prepare,
        "gumbel noise": chains.gumbel_noise,
        "our noise": chains.our_noise,
        "matmul": product,
    }
    for name in ("prepare", "gumbel noise", "our noise", "matmul"):
        runs[name]()
    seconds = interleaved(runs, repeats, device)
    rounds = zip(*(seconds[name] for name in ("naive", "ours", "gumbel noise", "our noise")), strict=True)
    ratios = [(naive / ours, (naive - own + gumbel) / ours) for naive, ours, gumbel, own in rounds]
    timings = {
        name: Timing(Spread.of(each), flops.get(name), memory.get(name))
        for name, each in seconds.items()
        if name != "matmul"
    }
    return Speed(
        case,
        timings,
        product_flops / min(seconds["matmul"]),
        speedup=statistics.median(ratio for ratio, _ in ratios),
        speedup_as_released=statistics.median(ratio for _, ratio in ratios),
        agreement=agreement,
    )


def measure_universal(case: Case, repeats: int) -> Speed:
    """Times `DDPSRefiner.refine` with the embedded weights, from the image and the logits to labels.

    Args:
        case: the logits of the classes shown are random ones of stride 32, brought to stride 4.
        repeats: rounds, after one that is not timed.

    Raises:
        InputError: more steps than the weights know.
    """
    refine = _refine(case)
    flops = count_flops(refine)
    memory = peak_memory(_refine, (case,), case.device)
    product, product_flops = matmul(case.device, case.dtype)
    product()
    seconds = interleaved({"refine": refine, "matmul": product}, repeats, case.device)
    timing = Timing(Spread.of(seconds["refine"]), flops, memory)
    return Speed(case, {"refine": timing}, product_flops / min(seconds["matmul"]))


def _naive(case: Case) -> Run:
    return PaperChains(case).naive


def _ours(case: Case) -> Run:
    return PaperChains(case).ours


def _refine(case: Case) -> Run:
    refiner = DDPSRefiner.from_pretrained(device=case.device, dtype=case.dtype)
    if case.compiled:
        refiner.compile()
    generator = torch.Generator().manual_seed(0)
    height, width = case.size
    images = torch.rand(case.batch, 3, height, width, generator=generator)
    # at least two values a side: where the logits are the same all over, there may be nothing to refine
    sides = -(-height // 32) + 1, -(-width // 32) + 1
    coarse = torch.randn(case.batch, case.classes, *sides, generator=generator)
    # as many as 8 take all slots of a tile; of the others, a segmentor is sure that they are not there
    coarse[:, : case.shown] *= 8
    coarse[:, case.shown :] -= 16
    logits = F.interpolate(coarse, (-(-height // STRIDE), -(-width // STRIDE)), mode="bilinear")
    return lambda: refiner.refine(
        images, logits, kind="logits", preset=case.preset, steps=case.steps, return_probs=False
    )
