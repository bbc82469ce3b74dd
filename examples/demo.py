"""Paint a photograph in every shipped style: what `make demo` runs."""

import time
from pathlib import Path

import skimage.data
from PIL import Image

from perceptual import Stylizer

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
print(folder.resolve())
