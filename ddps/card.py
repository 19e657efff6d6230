"""The model card of a refiner: YAML metadata for the Hub, then what a reader must know, read off the config."""

import json
from collections.abc import Mapping, Sequence

from .config import DDPSConfig, FeaturesNetwork

TAGS = ("ddps", "mask-refinement", "semantic-segmentation", "discrete-diffusion", "arxiv:2306.01721")


def model_card(
    config: DDPSConfig,
    *,
    source: str = "path/or/org/name",
    license: str | None = None,
    tags: Sequence[str] = (),
    parameters: int | None = None,
    sections: Mapping[str, str] | None = None,
) -> str:
    """Writes the model card (the README.md) of a refiner.

    Args:
        config: the refiner's config; name, classes, network, schedule and defaults are read off it.
        source: what a user gives to `DDPSRefiner.from_pretrained` to get this refiner.
        license: the Hub's identifier of the weights' licence, such as "apache-2.0"; None states none.
        tags: further tags beside `TAGS`.
        parameters: number of trained parameters, if known.
        sections: heading → Markdown, appended in order: training data, command, machine, results, limits.

    Returns:
        Markdown with a YAML header.
    """
    # JSON strings are YAML strings, whatever a name holds.
    metadata = ["library_name: ddps", "pipeline_tag: image-segmentation"]
    if license is not None:
        metadata.append(f"license: {json.dumps(license)}")
    metadata += ["tags:", *(f"- {json.dumps(tag)}" for tag in (*TAGS, *tags))]
    name = _inline(config.name) or "DDPS refiner"
    parts = [
        "\n".join(["---", *metadata, "---"]),
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
    for heading, text in (sections or {}).items():
        parts += [f"## {_inline(heading)}", text.strip()]
    return "\n\n".join(parts) + "\n"


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
            ("classes told apart at one place", f"at most {network.max_slots}"),
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
