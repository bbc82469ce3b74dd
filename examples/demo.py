"""Paint a photograph in every shipped style, and enlarge a small one: what `make demo` runs."""

import time
from pathlib import Path

import skimage.data
from PIL import Image

from perceptual import Stylizer, Upscaler

folder = Path("demo")
folder.mkdir(exist_ok=True)
photograph = Image.fromarray(skimage.data.chelsea())  # a cat by Stefan van der Walt, in the public domain
photograph.save(folder / "chelsea.png")

stylizer = Stylizer.load("gallery")
began = time.perf_counter()
for style in stylizer.styles:
    stylizer(photograph, style=style).save(folder / f"chelsea_{style}.png")
seconds = time.perf_counter() - began

width, height = photograph.size
print(f"Painted {width} x {height} px in {len(stylizer.styles)} styles, {seconds / len(stylizer.styles):.2f} s each:")

small = photograph.resize((width // 4, height // 4), Image.Resampling.BICUBIC)
small.save(folder / "small.png")
for loss in ("pixel", "feature"):
    began = time.perf_counter()
    Upscaler.at_scale(4, loss)(small).save(folder / f"small_x4_{loss}.png")
    print(f"Enlarged {small.width} x {small.height} px four times by {loss} loss, {time.perf_counter() - began:.2f} s")
print(folder.resolve())
