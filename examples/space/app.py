"""The page of `ddps app` as a Hugging Face Space, which runs this file; see docs/app.md.

A Space says in the environment where to listen. Visitors come from anywhere, so uploads are bounded tighter than on
one's own machine: a Space without a GPU has two cores.
"""

import os

from ddps import DDPSRefiner
from ddps.app.page import build_page
from ddps.app.server import serve
from ddps.app.uploads import Limits
from ddps.cli.app import find_examples

LIMITS = Limits(pixels=2048 * 1536, values=1 << 25, file_bytes=64 << 20)

page = build_page(DDPSRefiner.from_pretrained(), find_examples(), LIMITS, queue_size=8)

if __name__ == "__main__":
    host, port = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    print(f"ddps: the page is at {serve(page, host, port, limits=LIMITS)}", flush=True)
    page.block_thread()
