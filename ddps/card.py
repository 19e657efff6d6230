"""The model card of a refiner: YAML metadata for the Hub, then what a reader must know, read off the config."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .config import DDPSConfig, FeaturesNetwork
from .errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "image-segmentation"
# The Hub's name of a metric, where it has one, by the name that `ddps evaluate --json` gives it.
METRICS = {"miou": ("mean_iou", "mIoU"), "mbiou": ("mean_boundary_iou", "mBIoU"), "accuracy": ("accuracy", "accuracy")}
TAGS = ("ddps", "mask-refinement", "semantic-segmentation", "discrete-diffusion", "arxiv:2306.01721")


@dataclass(frozen=True)
class CardMetadata:
    """What the Hub's filters and widgets read of a model, beside what every refiner's card says.

    Attributes:
        license: the Hub's identifier of the weights' licence, such as "apache-2.0"; None states none.
        datasets: what the weights were trained on, by the Hub's ids or plain names.
        metrics: the Hub's ids of the metrics; () for those of `results`.
        results: what was measured; `evaluation_results` makes them of what `ddps evaluate --json` prints.
        tags: further tags beside `TAGS`.
        sections: heading → Markdown, appended to the card in order: training data, command, machine, limits.

    Raises:
        InputError: a name where a sequence of names belongs, a text that is empty or not one line, or results that
            are no `huggingface_hub.EvalResult`.
    """

    license: str | None = None
    datasets: Sequence[str] = ()
    metrics: Sequence[str] = ()
    results: Sequence["EvalResult"] = ()
    tags: Sequence[str] = ()
    sections: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        from huggingface_hub import EvalResult

        for field in ("datasets", "metrics", "tags"):
            if isinstance(getattr(self, field), str):
                raise InputError(f"a sequence of names as {field}", repr(getattr(self, field)), "a list of them")
        for text in (*((self.license,) if self.license is not None else ()), *self.datasets, *self.metrics, *self.tags):
            if not isinstance(text, str) or not text.strip():
                raise InputError("names in a card's metadata", repr(text), "text, or leaving it out")
        if not all(isinstance(result, EvalResult) for result in self.results):
            raise InputError("huggingface_hub.EvalResult as results", "others", "card.evaluation_results")


# What saving takes: a whole card in Markdown, or what to say in one beyond what the config does.
CardLike: TypeAlias = str | CardMetadata | None


def evaluation_results(
    report: Mapping[str, object], dataset: str, *, split: str | None = None, predictions: str | None = None
) -> list["EvalResult"]:
    """Turns what `ddps evaluate --json` prints into entries of a model index.

    Args:
        report: that JSON object.
        dataset: name of the data set, or its id on the Hub.
        split: such as "test".
        predictions: whose predictions were refined, such as the segmentor's name.

    Returns:
        mIoU, mBIoU and accuracy of the refined masks in percent, those that are there; each says in its `args` what
        the predictions had alone.

    Raises:
        InputError: it is no such report.
    """
    from huggingface_hub import EvalResult

    base, refined = report.get("base"), report.get("refined")
    if not isinstance(base, Mapping) or not isinstance(refined, Mapping):
        raise InputError("what `ddps evaluate --json` prints", "other JSON", "its whole output, parsed")
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_config=predictions,
            dataset_split=split,
            metric_type=hub_name,
            metric_name=f"{name}, refined" + (f" predictions of {predictions}" if predictions else ""),
            metric_value=refined[key],
            metric_args={"before_refinement": base.get(key), "images": report.get("images")},
        )
        for key, (hub_name, name) in METRICS.items()
        if refined.get(key) is not None
    ]


def model_card(
    config: DDPSConfig,
    metadata: CardMetadata | None = None,
    *,
    source: str = "path/or/org/name",
    parameters: int | None = None,
    sections: Mapping[str, str] | None = None,
) -> str:
    """Writes the model card (the README.md) of a refiner.

    Args:
        config: the refiner's config; name, classes, network, schedule and defaults are read off it.
        metadata: what is known beyond that; None for nothing.
        source: what a user gives to `DDPSRefiner.from_pretrained` to get this refiner.
        parameters: number of trained parameters, if known.
        sections: heading → Markdown, appended in order before those of `metadata`.

    Returns:
        Markdown with a YAML header.
    """
    metadata = CardMetadata() if metadata is None else metadata
    name = _inline(config.name) or "DDPS refiner"
    parts = [
        f"---\n{_header(config, metadata)}\n---",
        f"# {name}",
        "Makes the masks of a semantic segmentor better: a discrete diffusion model of masks "
        "([DDPS](https://arxiv.org/abs/2306.01721)) re-noises and denoises the segmentor's prediction, guided by "
        + ("the segmentor's own features." if _wants_features(config) else "the image."),
        "## Use",
        _usage(config, source),
        "## The model",
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in _facts(config, parameters))]),
    ]
    if config.labels.names:
        classes = ", ".join(f"{index} {_inline(name)}" for index, name in enumerate(config.labels.names))
        parts += ["## Classes", classes]
    for heading, text in {**(sections or {}), **(metadata.sections or {})}.items():
        parts += [f"## {_inline(heading)}", text.strip()]
    return "\n\n".join(parts) + "\n"


def _header(config: DDPSConfig, metadata: CardMetadata) -> str:
    """The YAML that the Hub reads; PyYAML quotes whatever a name holds."""
    from huggingface_hub import ModelCardData

    metrics = metadata.metrics or dict.fromkeys(result.metric_type for result in metadata.results)
    return ModelCardData(
        library_name="ddps",
        pipeline_tag=TASK,
        license=metadata.license,
        datasets=list(metadata.datasets) or None,
        metrics=list(metrics) or None,
        tags=[*TAGS, *metadata.tags],
        model_name=(config.name or "DDPS refiner") if metadata.results else None,
        eval_results=list(metadata.results) or None,
    ).to_yaml()


def _usage(config: DDPSConfig, source: str) -> str:
    call = "refiner.refine(image, logits, features=features)"
    if not _wants_features(config):
        call = "refiner.refine(image, logits)" if config.backbone is None else "refiner.refine(image)"
    return "\n".join(
        [
            "```python",
            "from ddps import DDPSRefiner",
            "",
            f"refiner = DDPSRefiner.from_pretrained({json.dumps(source)})",
            f"out = {call}",
            'out.save("mask.png")',
            "```",
        ]
    )


def _facts(config: DDPSConfig, parameters: int | None) -> list[tuple[str, str]]:
    network, schedule, inference = config.network, config.schedule, config.inference
    any_number = "any number" if config.labels.num_classes is None else str(config.labels.num_classes)
    facts = [("classes", any_number), ("ignored label", str(config.labels.ignore_index))]
    if config.labels.void_first:
        facts.append(("network's own classes", "one more, void first"))
    if config.backbone is not None:
        facts.append(
            (
                "encoder",
                f"Mix Transformer, widths {_numbers(config.backbone.embed_dims)}, "
                f"depths {_numbers(config.backbone.depths)}",
            )
        )
    if isinstance(network, FeaturesNetwork):
        facts += [
            ("condition", f"feature maps of {_numbers(network.in_channels)} channels"),
            ("U-Net", f"width {network.dim}, multipliers {_numbers(network.dim_mults)}"),
        ]
    else:
        facts += [
            ("condition", "the image and the segmentor's probabilities"),
            ("widths", f"image {_numbers(network.image_widths)}; masks {_numbers(network.slot_widths)}"),
            (
                "classes told apart at one place",
                f"at most {network.max_slots}" + ("" if network.classes else "; in label maps any number"),
            ),
        ]
    if parameters is not None:
        facts.append(("parameters", f"{parameters:,}"))
    return [
        *facts,
        ("noise", f"{schedule.kernel} kernel, {schedule.kind} schedule of {schedule.num_steps} steps"),
        ("defaults", f"sampler {inference.sampler}, {inference.steps} steps"),
        ("share in the answer", f"{inference.mix:g}, for label maps {inference.label_mix:g}"),
    ]


def _wants_features(config: DDPSConfig) -> bool:
    return isinstance(config.network, FeaturesNetwork) and config.backbone is None


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _inline(text: str) -> str:
    """A name as one line of Markdown that can neither end a table cell nor open a tag."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)
