"""Paint a photograph with a shipped network: what `make demo` runs."""

import time
from pathlib import Path

import skimage.data
from PIL import Image

from perceptual import Stylizer

folder = Path("demo")
folder.mkdir(exist_ok=True)
photograph = Image.fromarray(skimage.data.chelsea())  # a cat by Stefan van der Walt, in the public domain
photograph.save(folder / "chelsea.png")

stylizer = Stylizer.load("starry_night")
began = time.perf_counter()
painting = stylizer(photograph)
seconds = time.perf_counter() - began
painting.save(folder / "chelsea_starry_night.png")

width, height = painting.size
print(f"Painted {width} x {height} px in {seconds:.2f} s: {(folder / 'chelsea_starry_night.png').resolve()}")
