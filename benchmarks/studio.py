"""How quickly the page of `perceptual studio` answers, seen from a browser.

python benchmarks/studio.py [ROUNDS]

Headless Chromium opens the page, drops a photo of 12 megapixels, and moves the slider for the strength. Printed are
medians over the rounds (5 by default), in seconds: from the command to the page, from the drop to all thumbnails of the
wall, from the slider to the new preview, and the same painting by `Stylizer` alone, which no page can beat. Needs
`pip install 'perceptual[dev]'` and Chromium.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import skimage.data
from PIL import Image
from playwright.sync_api import sync_playwright

from perceptual import Stylizer, keep_memory

STYLES = 11
SIDE = 576  # pixels of the preview


def started(folder: Path) -> tuple[subprocess.Popen, str]:
    """The server's process and the address of its page."""
    command = [sys.executable, "-m", "perceptual", "studio", "--no-open-browser", "--port", "0", "--folder", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, re.search(r"http\S+", process.stdout.readline())[0]


def one_round(browser, photo: Path) -> tuple[float, float, float]:
    """Seconds until the page, the wall, and a preview."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process, url = started(Path(folder))
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#paint-go")
        ready = time.perf_counter() - began
        page.wait_for_timeout(3000)
        began = time.perf_counter()
        page.set_input_files("#paint-photos input[type=file]", photo)
        page.wait_for_function(f"document.querySelectorAll('#paint-wall img').length >= {STYLES}")
        wall = time.perf_counter() - began
        page.wait_for_timeout(2000)
        slider = statistics.median(moved(page, strength) for strength in (0.9, 0.7, 0.5, 0.3, 0.1))
        page.close()
        process.terminate()
        process.wait()
    return ready, wall, slider


def moved(page, strength: float) -> float:
    """Seconds from a new strength to the new picture."""
    script = """strength => new Promise(done => {
        const slider = document.querySelector('#paint-strength input[type=range]'), began = performance.now();
        const field = document.querySelector('#paint-compare');
        const watch = new MutationObserver(() => { watch.disconnect(); done(performance.now() - began); });
        watch.observe(field, {subtree: true, attributes: true, attributeFilter: ['src']});
        slider.value = strength;
        slider.dispatchEvent(new Event('input', {bubbles: true}));
    })"""
    seconds = page.evaluate(script, strength) / 1000
    page.wait_for_timeout(700)
    return seconds


def main() -> None:
    """Print one line for each of the four times."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    photo = Image.fromarray(skimage.data.astronaut()).resize((4096, 3072))
    small = photo.resize((SIDE, SIDE * 3 // 4))
    keep_memory()
    stylizer = Stylizer.load("starry_night")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photo.save(Path(folder) / "photo.jpg", quality=90)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        times, alone = [], []
        for _ in range(rounds):
            times.append(one_round(browser, Path(folder) / "photo.jpg"))
            stylizer(small)
            began = time.perf_counter()
            stylizer(small, strength=0.5)
            alone.append(time.perf_counter() - began)
        browser.close()
    ready, wall, slider = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"from the command to the page: {ready:.2f} s")
    print(f"from a photo of 12 megapixels to its {STYLES} thumbnails: {wall:.2f} s")
    preview = statistics.median(alone)
    print(f"from the slider to the preview: {slider:.3f} s; ratio to the painting alone {slider / preview:.2f}")


if __name__ == "__main__":
    main()
