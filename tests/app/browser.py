"""The page served in this process, and headless Chromium to visit it with; tests skip where either is absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ddps import DDPSRefiner
from ddps.app.examples import Example
from ddps.app.page import build_page
from ddps.app.server import serve
from ddps.app.uploads import Limits

PATIENCE = 60_000
"""Milliseconds that anything on the page may take, on a machine that has much else to do."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A Playwright browser around the system's Chromium, or the program that $DDPS_CHROMIUM names."""
    api = pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install playwright")
    program = os.environ.get("DDPS_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium, or DDPS_CHROMIUM=/path/to/it")
    # Its sandbox refuses to run as root, which is who runs tests in a container.
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@contextmanager
def served(
    refiner: DDPSRefiner, examples: list[Example], limits: Limits | None = None, queue_size: int = 16
) -> Iterator[str]:
    """The address of a page around `refiner`."""
    pytest.importorskip("gradio", reason="serves the page: pip install '.[app]'")
    page = build_page(refiner, examples, limits, queue_size)
    try:
        yield serve(page, limits=limits)
    finally:
        page.close(verbose=False)


class Visitor:
    """One tab, and what it asked for.

    Args:
        browser: of `chromium`.
        address: of `served`.
        width: of the window, in pixels; below 600 that of a phone.
        scheme: "light" or "dark".
    """

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light"):
        phone = width < 600
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, is_mobile=phone, has_touch=phone
        )
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", self._listen)
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.response = self.tab.goto(address)
        self.tab.locator("#ddps-refine").wait_for()

    def upload(self, image: Path | None = None, prediction: Path | None = None) -> None:
        """Adds files, in place of what was there."""
        for name, path in (("image", image), ("prediction", prediction)):
            if path is None:
                continue
            field = self.tab.locator(f"#ddps-{name}")
            if field.get_by_text("Drop File Here").count() == 0:
                field.get_by_label("Clear").or_(field.get_by_label("Remove")).first.click()
                field.get_by_text("Drop File Here").wait_for()
            field.locator("input[type=file]").set_input_files(path)
            field.get_by_text("Drop File Here").wait_for(state="detached")

    def refine(self) -> None:
        """Presses the button and waits until everything is there."""
        self.tab.locator("#ddps-refine").click()
        self.wait_for_answer()

    def wait_for_answer(self) -> None:
        self.tab.locator(".ddps-compare").wait_for()
        self.tab.locator("#ddps-refine", has_text="Refine").wait_for()
        self.tab.locator("#ddps-probs:not([disabled])", has_text="Download").wait_for()

    def download(self, which: str, folder: Path) -> Path:
        with self.tab.expect_download() as expected:
            self.tab.locator(f"#ddps-{which}").click()
        path = folder / expected.value.suggested_filename
        expected.value.save_as(path)
        return path

    def error(self, about: str) -> str:
        """The sentence on the page that contains `about`."""
        box = self.tab.locator(".ddps-error", has_text=about)
        box.wait_for()
        return str(box.inner_text())

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.tab.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def close(self) -> None:
        self.context.close()

    def _listen(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)
