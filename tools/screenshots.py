"""Screenshots of every tab of `perceptual studio` for docs/: python tools/screenshots.py PAINTING

Needs `pip install 'perceptual[dev]'`, Chromium, and the weights vgg16-torchvision. PAINTING is what the tab Own style
learns. The photos are those of scikit-image.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
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


def own_style(page: Page, painting: Path) -> None:
    """The tab Own style while it learns."""
    page.get_by_role("tab", name="Own style").click()
    page.set_input_files("#own-painting input[type=file]", painting)
    page.wait_for_timeout(1500)
    page.click("#own-go")
    page.wait_for_function("/([4-9]\\d|1\\d\\d) of 150/.test(document.querySelector('#own-progress').innerText)")
    shoot(page, "studio_own_style")
    page.click("#own-stop")
    page.wait_for_function("document.querySelector('#own-progress').innerText.includes('was stopped')")


def video(page: Page, clip: Path) -> None:
    """The tab Video."""
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#video-clip input[type=file]", clip)
    page.wait_for_timeout(3000)
    page.click("#video-preview")
    page.wait_for_function("document.querySelectorAll('#video-frames img').length >= 10")
    shoot(page, "studio_video")


def explore(page: Page, photo: Path) -> None:
    """The tab Loss explorer."""
    page.get_by_role("tab", name="Loss explorer").click()
    page.set_input_files("#explore-photo input[type=file]", photo)
    page.wait_for_selector("#explore-gram img")
    page.fill("#explore-iterations input[type=number]", "60")
    page.keyboard.press("Tab")
    page.click("#explore-invert")
    page.wait_for_function("document.querySelector('#explore-progress').innerText.includes('finished')")
    shoot(page, "studio_explore")


def make_clip(path: Path) -> None:
    """A video in which the camera moves over the cat."""
    cat = skimage.data.chelsea()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(48):
            window = np.ascontiguousarray(cat[30:270, 2 * k : 2 * k + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode(None))


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
            own_style(page, Path(sys.argv[1]))
            make_clip(Path(folder) / "cat.mp4")
            video(page, Path(folder) / "cat.mp4")
            explore(page, photo)
            browser.close()


if __name__ == "__main__":
    main()
