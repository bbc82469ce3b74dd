"""Screenshots of every tab of `perceptual studio` for docs/: python tools/screenshots.py

Needs `pip install 'perceptual[dev]'`, Chromium, and for two of the tabs the weights of VGG-16. The photos are those of
scikit-image.
"""

import shutil
import tempfile
from pathlib import Path

import skimage.data
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from perceptual.config import StudioConfig
from perceptual.studio import running

DOCS = Path(__file__).parents[1] / "docs"
WAIT = 600_000  # ms


def shoot(page: Page, name: str) -> None:
    """Write one screenshot."""
    page.wait_for_timeout(1500)
    page.screenshot(path=DOCS / f"{name}.jpg", type="jpeg", quality=88)


def paint(page: Page, photo: Path) -> None:
    """The tab Paint."""
    page.set_input_files("#paint-photos input[type=file]", photo)
    page.wait_for_function("document.querySelectorAll('#paint-wall img').length > 10")
    page.locator("#paint-wall button", has_text="starry_night").first.click()
    page.click("#paint-go")
    page.wait_for_function("document.querySelector('#paint-progress').innerText.includes('finished')")
    shoot(page, "studio")


def enlarge(page: Page, photo: Path) -> None:
    """The tab Enlarge."""
    page.get_by_role("tab", name="Enlarge").click()
    page.set_input_files("#enlarge-photos input[type=file]", photo)
    page.wait_for_selector("#enlarge-compare img")
    shoot(page, "studio_enlarge")


def main() -> None:
    """Start the page and take the pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photo, small = Path(folder) / "astronaut.jpg", Path(folder) / "small.png"
        Image.fromarray(skimage.data.astronaut()).save(photo, quality=95)
        Image.fromarray(skimage.data.coffee()).resize((300, 200), Image.Resampling.BICUBIC).save(small)
        with running(StudioConfig(folder=Path(folder) / "perceptual-studio", port=0)) as address:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 1000}, color_scheme="light")
            page.set_default_timeout(WAIT)
            page.goto(address.url)
            paint(page, photo)
            enlarge(page, small)
            browser.close()


if __name__ == "__main__":
    main()
