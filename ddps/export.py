"""One denoising step as a file for other runtimes: ONNX, or a `torch.export` program.

A chain of steps stays a loop outside of the file, as in `examples/onnx_inference.py`: its length, its noise and the
size of the picture are then the caller's. Height, width, batch and the number of slots may differ from call to call.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from .atomic import atomic_write
from .canvas import LEAST
from .context import MOST, SHORT_SIDE, TINY
from .errors import InputError, one_line
from .models.fold import folded
from .models.slot_unet import SlotUNet
from .prediction_window import NEGLIGIBLE_PEAK
from .refiner import SURE, DDPSRefiner
from .slots import NEGLIGIBLE_MASS, NOWHERE_LIKELY
from .tile_chain import FINE_SHARE, MOST_ZOOM

Format: TypeAlias = Literal["onnx", "pt2"]
FORMATS: tuple[Format, ...] = get_args(Format)
METADATA_KEY = "ddps"
METADATA_VERSION = 1
LOGITS, COARSE_LOGITS = "logits", "coarse_logits"
TOLERANCE = 1e-3
"""Largest difference to torch, in logits, with which a file is written."""
# (batch, slots, height, width), the latter two in strides: odd, small, tall, and another number of everything
CHECKED_SIZES = ((1, 2, 2, 2), (1, 8, 3, 7), (3, 5, 6, 2))
# whose ONNX exporter is the one that is used here; older ones were not tried
LEAST_TORCH = (2, 9)
_INSTALL = 'pip install "ddps[onnx]"'

Run: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]


class DenoisingStep(nn.Module):
    """What a file holds: condition inputs, noised mask and network time in, logits out.

    Args:
        network: of a plug-in refiner; it is copied, with its normalisations folded into its convolutions.
    """

    def __init__(self, network: SlotUNet):
        super().__init__()
        self.network = folded(network).requires_grad_(False)

    def forward(
        self, image: Tensor, probs: Tensor, mask: Tensor, step: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One pass.

        Args:
            image: (B, 3, H, W) in [0, 1], RGB; H and W multiples of the network's stride.
            probs: (B, S, H, W) the segmentor's probabilities of the slots, S >= 2, summing to 1.
            mask: (B, H/2, W/2) int64, the noised mask x_t in slot indices.
            step: (B,) int64 network time, 0 (noisiest) to T-1.
            classes: (B, S) int64, the class in every slot, K for "other"; only of networks that know their classes.

        Returns:
            (B, S, H, W) and (B, S, H/2, W/2) logits of p(x_0 | x_t): at image scale, which answers are made of, and on
            the mask's own grid, which the next step's mask is drawn from.
        """
        condition = self.network.condition(image, probs, classes=classes)
        denoised = self.network.denoise(mask, step, condition)
        return self.network.finish(denoised, condition), denoised.logits


@dataclass(frozen=True)
class ExportedFile:
    """What was written.

    Attributes:
        path: of the file.
        format: "onnx" or "pt2".
        inputs: their names, in order.
        bytes: size of the file.
        difference: largest difference to torch, in logits, over `CHECKED_SIZES`.
    """

    path: Path
    format: Format
    inputs: tuple[str, ...]
    bytes: int
    difference: float


def export(model: DDPSRefiner, path: str | Path, format: Format, overwrite: bool = False) -> ExportedFile:
    """Writes a denoising step of a plug-in refiner, in float32 and for every size, and holds it against torch.

    The file is written only if what is in it agrees with torch on several sizes, to `TOLERANCE` in the logits.

    Args:
        model: on any device; it stays as it is.
        path: file to write, in an existing folder.
        format: "onnx" for ONNX Runtime, or "pt2" for `torch.export.load`.
        overwrite: whether a file that is already there may be replaced.

    Raises:
        InputError: a model conditioned on features, packages that are missing, a path that cannot be written, or a file
            that does not agree with torch.
    """
    check_exportable(model, format)
    step = DenoisingStep(model.network).cpu().float()  # type: ignore[arg-type]
    names = ("image", "probs", "mask", "step", *(["classes"] if step.network.config.classes else []))
    with _quiet():
        program = _trace(step)
        if format == "onnx":
            content = _to_onnx(program, names, metadata(model))
            run = _onnx_runner(content)
        else:
            content = _to_pt2(program, metadata(model))
            run = _program_runner(content)
        difference = max(_difference(step, run, size) for size in CHECKED_SIZES)
    if not difference <= TOLERANCE:
        raise InputError(
            f"an exported step within {TOLERANCE} of torch", f"{difference:.3g}", "another version of torch or onnx"
        )
    with atomic_write(path, overwrite) as file:
        file.write(content)
    return ExportedFile(Path(path), format, names, len(content), difference)


def check_exportable(model: DDPSRefiner, format: Format) -> None:
    """Refuses a model or an installation that nothing can be exported with, before any work goes into it.

    Raises:
        InputError: as said.
    """
    if format not in FORMATS:
        raise InputError("format 'onnx' or 'pt2'", repr(format)[:60], "one of these")
    if not isinstance(model.network, SlotUNet):
        raise InputError(
            "a model that refines predictions (network.conditioning 'logits')",
            "one conditioned on a segmentor's features",
            "the universal weights, or weights trained from them",
        )
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        least = ".".join(map(str, LEAST_TORCH))
        raise InputError(f"torch {least} or later to export", torch.__version__, f"pip install 'torch>={least}'")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if format == "onnx" and missing:
        raise InputError("onnx, onnxscript and onnxruntime", f"no {', '.join(missing)}", _INSTALL)


def metadata(model: DDPSRefiner) -> str:
    """What a loop around the step has to know, as JSON: the model's config, its schedule and the constants of slots and
    zoom. An ONNX file keeps it as the property "ddps", a program as an extra file of that name."""
    from . import __version__

    assert isinstance(model.network, SlotUNet)
    facts = {
        "version": METADATA_VERSION,
        "ddps": __version__,
        "config": json.loads(model.config.to_json()),
        "stride": model.network.config.stride,
        "mask_stride": 2,
        "alpha_bar": model.schedule.alpha_bar[:-1].tolist(),
        "slots": {
            "most": model.network.config.max_slots,
            "negligible_mass": NEGLIGIBLE_MASS,
            "nowhere_likely": NOWHERE_LIKELY,
            "negligible_peak": NEGLIGIBLE_PEAK,
            "sure": SURE,
        },
        "most_zoom": MOST_ZOOM,
        "fine_share": FINE_SHARE,
        "context": {"short_side": SHORT_SIDE, "most": MOST, "least": TINY},
        "least": LEAST,
    }
    return json.dumps(facts)


def _inputs(step: DenoisingStep, size: tuple[int, int, int, int], seed: int) -> tuple[Tensor, ...]:
    """Random inputs of (batch, slots, height, width), the latter two in strides."""
    batch, slots, height, width = size
    stride = step.network.config.stride
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, stride * height, stride * width, generator=generator)
    probs = (2 * torch.randn(batch, slots, stride * height, stride * width, generator=generator)).softmax(1)
    mask = torch.randint(slots, (batch, stride * height // 2, stride * width // 2), generator=generator)
    times = torch.randint(2, (batch,), generator=generator)
    count = step.network.config.classes
    if not count:
        return image, probs, mask, times
    # "other" stands last
    classes = [torch.randperm(count, generator=generator)[:slots].sort().values for _ in range(batch)]
    padded = [torch.cat([some, some.new_full((slots - len(some),), count)]) for some in classes]
    return image, probs, mask, times, torch.stack(padded)


def _trace(step: DenoisingStep) -> torch.export.ExportedProgram:
    """The step's graph for every size; a CPU's shortcuts are not in it, they would be for one size."""
    from torch._dynamo import config
    from torch.export import Dim

    stride = step.network.config.stride
    batch, slots = Dim("batch", min=1), Dim("slots", min=2)
    # traced for at least two strides: of one, torch cannot tell which way its memory lies
    rows, columns = Dim("rows", min=2), Dim("columns", min=2)
    shapes: list[dict[int, Any]] = [
        {0: batch, 2: stride * rows, 3: stride * columns},
        {0: batch, 1: slots, 2: stride * rows, 3: stride * columns},
        {0: batch, 1: stride // 2 * rows, 2: stride // 2 * columns},
        {0: batch},
        {0: batch, 1: slots},
    ]
    # Sizes of 0 and 1 would be taken for constants. The cache of fake tensors costs more than it saves: a half.
    inputs = _inputs(step, (2, 3, 3, 5), seed=0)
    with config.patch(fake_tensor_cache_enabled=False):
        return torch.export.export(step, inputs, dynamic_shapes=tuple(shapes[: len(inputs)]), strict=False)


def _to_onnx(program: torch.export.ExportedProgram, names: Sequence[str], facts: str) -> bytes:
    from torch._dynamo import config

    with config.patch(fake_tensor_cache_enabled=False):
        made = torch.onnx.export(
            program,
            input_names=list(names),
            output_names=[LOGITS, COARSE_LOGITS],
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    height, width = "height", "width"
    axes = {
        "image": ("batch", 3, height, width),
        "probs": ("batch", "slots", height, width),
        "mask": ("batch", f"{height}/2", f"{width}/2"),
        "step": ("batch",),
        "classes": ("batch", "slots"),
        LOGITS: ("batch", "slots", height, width),
        COARSE_LOGITS: ("batch", "slots", f"{height}/2", f"{width}/2"),
    }
    for value in [*proto.graph.input, *proto.graph.output]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if isinstance(name, str):
                dimension.dim_param = name
    # shapes in between go by the tracer's names, which now are nobody's
    del proto.graph.value_info[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, facts
    proto.producer_name = "ddps"
    return bytes(proto.SerializeToString())


def _to_pt2(program: torch.export.ExportedProgram, facts: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_KEY: facts})
    return buffer.getvalue()


def _onnx_runner(content: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = dict(zip(names, (value.numpy() for value in inputs), strict=True))
        return [torch.from_numpy(np.asarray(value)) for value in session.run([LOGITS, COARSE_LOGITS], feed)]

    return run


def _program_runner(content: bytes) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: list(module(*inputs))


def _difference(step: DenoisingStep, run: Run, size: tuple[int, int, int, int]) -> float:
    """Largest difference to torch; infinite where a shape is another one."""
    inputs = _inputs(step, size, seed=1)
    with torch.no_grad():
        wanted = step(*inputs)
    try:
        answers = run(inputs)
    except Exception as error:  # each runtime has its own kinds
        raise InputError(f"a step that runs for (B, S, H, W) of {size}", one_line(error), "other versions") from error
    pairs = list(zip(answers, wanted, strict=True))
    if any(mine.shape != its.shape for mine, its in pairs):
        return float("inf")
    return max(float((mine - its).abs().max()) for mine, its in pairs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself: it warns of torchvision, which nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
