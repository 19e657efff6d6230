"""What stands where on the page, in Gradio."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..errors import InputError
from ..predictions import AnyKind
from ..refiner import DDPSRefiner
from . import markup
from .events import LOOKS, Events
from .examples import Example, ExampleFiles, lay_out
from .uploads import PREDICTION_SUFFIXES, Limits

if TYPE_CHECKING:
    import gradio as gr

SAMPLERS = ("free", "posterior", "single")
SWEEP_SECONDS, KEPT_SECONDS = 300, 3600
"""How often uploads and answers are looked through, and how old they may become."""
_KIND_NAMES = {"auto": "find out", "labels": "class ids (labels)", "probs": "probabilities (probs)", "logits": "logits"}
# On a phone the answer lies below the fold.
_SCROLL = """() => { if (window.innerWidth < 900)
  document.querySelector('#ddps-result').scrollIntoView({behavior: 'smooth'}) }"""


@dataclass(frozen=True, eq=False)
class _Controls:
    """What visitors set: `about` the uploads, and `options` of the chain."""

    gallery: Any
    about: list[Any]
    options: list[Any]
    button: Any


@dataclass(frozen=True, eq=False)
class _Results:
    """What visitors get."""

    comparison: Any
    downloads: Any
    details: Any
    mask: Any
    probs: Any

    @property
    def shown(self) -> list[Any]:
        return [self.comparison, self.downloads, self.details]


def build_page(
    refiner: DDPSRefiner, examples: Sequence[Example] = (), limits: Limits | None = None, queue_size: int = 16
) -> "gr.Blocks":
    """The page around one refiner, which all visitors share, one after the other.

    Args:
        refiner: of predictions.
        examples: to try at a click, with different titles.
        limits: of uploads; None for the defaults.
        queue_size: visitors that may wait; who comes then is told to come again.

    Raises:
        InputError: Gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise InputError("the package gradio, which serves the page", "none installed", 'pip install "ddps[app]"')
    import gradio as gr

    limits = limits or Limits()
    folder = tempfile.TemporaryDirectory(prefix="ddps-app-")
    files = lay_out(examples, Path(folder.name))
    # Gradio counts visits unless it is told not to.
    with gr.Blocks(
        title="ddps: sharper masks", analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.HTML(markup.header())
        with gr.Row(equal_height=False, elem_classes="ddps-columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="ddps-inputs"):
                controls = _add_controls(refiner, files)
            with gr.Column(scale=8, min_width=320):
                results = _add_results()
        gr.HTML(markup.footer(limits, refiner.device.type))
        _connect(controls, results, Events(refiner, limits, files, folder))
    page.queue(max_size=queue_size, default_concurrency_limit=4, api_open=False)
    return page


def _add_controls(refiner: DDPSRefiner, files: Sequence[ExampleFiles]) -> _Controls:
    import gradio as gr

    gallery = None
    if files:
        gr.HTML(markup.label("Try an example"))
        gallery = gr.Gallery(
            [(example.thumbnail, example.title) for example in files],
            show_label=False,
            columns=len(files),
            rows=1,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            fit_columns=False,
            buttons=[],
            interactive=False,
            elem_id="ddps-examples",
        )
    image = gr.File(label="Image", file_types=["image"], height=104, elem_id="ddps-image", elem_classes="ddps-file")
    prediction = gr.File(
        label="Its prediction (png, npy or npz)",
        file_types=list(PREDICTION_SUFFIXES),
        height=104,
        elem_id="ddps-prediction",
        elem_classes="ddps-file",
    )
    with gr.Accordion("About the prediction", open=False):
        kind = gr.Dropdown(
            [(_KIND_NAMES[name], name) for name in get_args(AnyKind)],
            value="auto",
            label="Kind of values",
            info="A png holds class ids. Of an array, shape and values tell, unless they leave it open.",
        )
        names = gr.Textbox(
            label="Class names",
            placeholder="background, cat, dog",
            info="Of class 0, 1, 2, … for the legend.",
            elem_id="ddps-names",
        )
        void = gr.Number(
            value=255,
            label="Void label (ignore_index)",
            info="Stays void. A mask of nothing but 0 and 255 has none.",
        )
    with gr.Group():
        defaults = refiner.config.inference
        steps = gr.Slider(
            1,
            refiner.schedule.num_steps,
            value=defaults.steps,
            step=1,
            label="Denoising steps",
            info="More take longer; two are as good as many for most masks.",
            elem_id="ddps-steps",
        )
        sampler = gr.Radio(
            list(SAMPLERS),
            value=defaults.sampler,
            label="Sampler",
            info="free: the paper's re-noising. posterior: Bayes' rule. single: one pass, fastest.",
            elem_id="ddps-sampler",
        )
        seed = gr.Number(value=0, label="Seed", info="The same seed gives the same mask.", elem_id="ddps-seed")
    button = gr.Button("Refine", variant="primary", size="lg", elem_id="ddps-refine")
    return _Controls(gallery, [image, prediction, kind, void, names], [steps, sampler, seed], button)


def _add_results() -> _Results:
    import gradio as gr

    comparison = gr.HTML(markup.empty(), elem_id="ddps-result")
    with gr.Row(visible=False, elem_id="ddps-downloads") as downloads:
        mask = gr.DownloadButton("Download mask (png)", elem_id="ddps-mask")
        probs = gr.DownloadButton("Download probabilities (npz)", elem_id="ddps-probs")
    return _Results(comparison, downloads, gr.HTML("", elem_id="ddps-details"), mask, probs)


def _connect(controls: _Controls, results: _Results, events: Events) -> None:
    import gradio as gr

    # Gradio finds out from the annotation what to pass.
    def choose(event: gr.SelectData) -> tuple[Any, ...]:
        return events.choose(event.index)

    image, prediction, kind, void, names = controls.about
    private: dict[str, Any] = {"api_visibility": "private"}
    look: dict[str, Any] = private | {"concurrency_limit": LOOKS, "concurrency_id": "look", "show_progress": "hidden"}
    for changed in (
        image.upload,
        image.clear,
        prediction.upload,
        prediction.clear,
        kind.input,
        names.submit,
        names.blur,
        void.blur,
    ):
        changed(events.preview, controls.about, results.shown, **look)
    refine: dict[str, Any] = private | {
        "fn": events.refine,
        "inputs": [*controls.about, *controls.options],
        "outputs": [*results.shown, results.mask, results.probs, controls.button],
        # One refiner: everybody else waits in the queue.
        "concurrency_limit": 1,
        "concurrency_id": "refine",
        "show_progress_on": results.comparison,
    }
    # Whatever became of the run: a full queue and a failure, too, give the button back.
    rest: dict[str, Any] = private | {
        "fn": events.rest,
        "outputs": controls.button,
        "js": _SCROLL,
        "queue": False,
        "show_progress": "hidden",
    }
    controls.button.click(**refine).then(**rest)
    if controls.gallery is not None:
        chosen = controls.gallery.select(choose, None, [*controls.about, *results.shown], **look)
        chosen.then(**refine).then(**rest)
