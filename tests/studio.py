"""A server of `perceptual studio` and a headless browser for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from perceptual.config import StudioConfig

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT = 60_000  # ms; a busy machine is slow


@contextlib.contextmanager
def server(folder: Path, **settings: Any) -> Generator[Any, None, None]:
    """The page, served from this process on a free port; yields its Address."""
    pytest.importorskip("gradio")
    from perceptual.studio import running
    from perceptual.studio.server import SETTINGS

    kept = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", *SETTINGS)}
    try:
        with running(StudioConfig(folder=folder, port=0, **settings)) as address:
            yield address
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page in a browser of its own; the test fails if JavaScript of the page failed."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(WAIT)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def give(page: Any, field: str, *files: Path) -> None:
    """Put files into a file field."""
    page.set_input_files(f"#{field} input[type=file]", [str(path) for path in files])


def count(page: Any, selector: str, least: int) -> None:
    """Wait until so many elements are there."""
    page.wait_for_function(f"document.querySelectorAll({selector!r}).length >= {least}")


def text(page: Any, selector: str, part: str) -> str:
    """Wait until an element holds a text; returns all of its text."""
    page.wait_for_function(
        "([selector, part]) => document.querySelector(selector)?.innerText.includes(part)", arg=[selector, part]
    )
    return str(page.inner_text(selector))


def sources(page: Any, field: str) -> list[str]:
    """The addresses of the pictures in a field."""
    return list(page.eval_on_selector_all(f"#{field} img", "images => images.map(image => image.src)"))


def failure(page: Any) -> str:
    """The sentence of the newest error that the page shows."""
    page.wait_for_selector(".toast-body.error")
    return str(page.locator(".toast-body.error").last.inner_text())
