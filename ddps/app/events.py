"""What the page does when something is clicked or uploaded: plain functions' answers as Gradio's updates."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from ..errors import InputError
from ..out_of_memory import memory_for
from ..outputs import Refinement
from ..predictions import AnyKind
from ..refiner import DDPSRefiner
from . import markup
from .answers import Options, read_options, refine_upload, save_mask, save_probs, show_answer, show_upload
from .examples import ExampleFiles
from .uploads import Limits, Upload, parse_names, read_upload

in_memory = memory_for("memory for pictures of the image", "a smaller image")
LOOKS = 2
"""Previews at a time."""


class Events:
    """One page's.

    Pictures are read, refined and drawn in a few threads that stay the same. Gradio has forty, and takes any: each of
    them would keep what the C library and oneDNN hold for a thread, 20 MiB and more for large pictures.

    Args:
        refiner: that all visitors share.
        limits: of uploads.
        examples: on disk.
        folder: that the examples lie in, which is deleted with this object.
    """

    def __init__(
        self,
        refiner: DDPSRefiner,
        limits: Limits,
        examples: Sequence[ExampleFiles],
        folder: "tempfile.TemporaryDirectory[str]",
    ):
        self._refiner, self._limits, self._examples, self._folder = refiner, limits, examples, folder
        self._refining = ThreadPoolExecutor(1, "ddps-refine")
        self._looking = ThreadPoolExecutor(LOOKS, "ddps-look")

    def preview(
        self, image: str | None, prediction: str | None, kind: str, void: float | None, names: str | None
    ) -> tuple[Any, ...]:
        """The uploads as they are: the comparison's place, the downloads' row, the details' place."""
        import gradio as gr

        if image and prediction:
            try:
                shown = self._looking.submit(self._look, image, prediction, kind, void, names).result()
            except InputError as error:
                shown = markup.error(error)
        else:
            shown = markup.half(has_image=bool(image)) if image or prediction else markup.empty()
        return shown, gr.update(visible=False), ""

    def choose(self, index: int) -> tuple[Any, ...]:
        """An example's files and settings, and what `preview` says of them."""
        example = self._examples[index]
        about = str(example.photo), str(example.mask), "auto", 255, example.names
        return *about, *self.preview(*about)

    def refine(
        self,
        image: str | None,
        prediction: str | None,
        kind: str,
        void: float | None,
        names: str | None,
        steps: float | None,
        sampler: str | None,
        seed: float | None,
    ) -> Iterator[tuple[Any, ...]]:
        """`preview`'s places, both downloads and the button: at once, when the answer is there, when its files are.

        HTML is given again where it could be skipped. For every skip Gradio makes the component anew, and keeps what it
        shows, megabytes of pictures, for as long as it keeps the visitor's session.
        """
        import gradio as gr

        same = gr.skip()
        try:
            read = self._refining.submit(self._read, image, prediction, kind, void, names)
            upload, options = read.result(), read_options(steps, sampler, seed)
            shown = self._refining.submit(self._show, upload).result()
            waiting = gr.update(value="Refining …", interactive=False)
            yield shown, gr.update(visible=False), "", same, same, waiting
            refined, comparison, details = self._refining.submit(self._answer, upload, options).result()
        except InputError as error:
            yield markup.error(error), gr.update(visible=False), "", same, same, same
            return
        # Gradio copies the files that it is given before it asks for more, so that the folder may go afterwards.
        with tempfile.TemporaryDirectory(prefix="ddps-app-") as folder:
            mask = gr.update(value=str(self._refining.submit(save_mask, upload, refined, Path(folder)).result()))
            waiting = gr.update(label="Preparing probabilities …", value=None, interactive=False)
            yield comparison, gr.update(visible=True), details, mask, waiting, same
            probs = self._refining.submit(save_probs, upload, refined, Path(folder)).result()
            if probs is None:
                ready = gr.update(label="Too many probabilities for a download", interactive=False)
            else:
                ready = gr.update(label="Download probabilities (npz)", value=str(probs), interactive=True)
            yield comparison, same, details, same, ready, same

    def rest(self) -> Any:
        """The button as it was before `refine`."""
        import gradio as gr

        return gr.update(value="Refine", interactive=True)

    def _look(self, image: str, prediction: str, kind: str, void: float | None, names: str | None) -> str:
        return self._show(self._read(image, prediction, kind, void, names))

    @in_memory
    def _show(self, upload: Upload) -> str:
        return show_upload(self._refiner, upload)

    @in_memory
    def _answer(self, upload: Upload, options: Options) -> tuple[Refinement, str, str]:
        refined = refine_upload(self._refiner, upload, options)
        return refined, *show_answer(self._refiner, upload, refined, options)

    def _read(
        self, image: str | None, prediction: str | None, kind: str, void: float | None, names: str | None
    ) -> Upload:
        if not (image and prediction):
            got = "only the image" if image else "only the prediction" if prediction else "neither"
            raise InputError("an image and its prediction", got, "adding what is missing, or clicking an example")
        if void is None or not float(void).is_integer():
            raise InputError("the void label as a whole number", "nothing" if void is None else f"{void:g}", "255")
        return read_upload(
            image,
            prediction,
            cast(AnyKind, kind),
            int(void),
            parse_names(names or ""),
            self._limits,
            self._refiner.config.labels.num_classes,
        )
