"""`ddps app`: a web page on this machine, on which a mask is refined and looked at."""

import argparse
import os
import signal
import time
from importlib.util import find_spec

from ..app.examples import Example
from ..app.page import build_page
from ..app.server import HOST, PORT, serve
from ..app.uploads import Limits
from ..errors import InputError
from .demo import PHOTOS, find_photo, read_mask_outlines
from .options import add_model_options, load_refiner, whole


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "app",
        help="serve a web page to refine masks on",
        description="Serves a web page, to this machine only: an image and its prediction in; the refined mask, its "
        "uncertainty and the steps on the way out. It needs the extra app, and no network.",
    )
    add_model_options(parser)
    parser.add_argument(
        "--host", default=HOST, metavar="ADDRESS", help=f"to listen on; 0.0.0.0 for all (default: {HOST})"
    )
    parser.add_argument(
        "--port", type=whole(1, 65535), metavar="N", help=f"to listen on (default: the first free one from {PORT} on)"
    )
    parser.add_argument(
        "--share", action="store_true", help="open a public address through Gradio's servers, for anybody to use"
    )
    # Every one of a server's many threads would keep memory of its own.
    parser.set_defaults(run=run, keeps_memory=False)


def run(args: argparse.Namespace) -> int:
    if find_spec("gradio") is None:
        raise InputError("the package gradio, which serves the page", "none installed", 'pip install "ddps[app]"')
    refiner = load_refiner(args)
    limits = Limits()
    # Weights for certain classes cannot know the examples'.
    examples = find_examples() if refiner.config.labels.num_classes is None else []
    # Gradio's log of requests, which nobody looks at, would hold 10000.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    page = build_page(refiner, examples, limits)
    address = serve(page, args.host, args.port, args.share, limits)
    print(f"ddps: the page is at {address} (Ctrl+C ends it)", flush=True)
    # A service that is stopped deletes what was uploaded, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    finally:
        page.close(verbose=False)


def find_examples() -> list[Example]:
    """The demo's photos with their rough masks; none where scikit-image, which brings the photos, is not installed."""
    examples = []
    for name in PHOTOS:
        outlines = read_mask_outlines("rough", name)
        try:
            photo = find_photo(outlines.image)
        except InputError:
            continue
        examples.append(Example(name, photo, outlines.labels(), outlines.classes))
    return examples
