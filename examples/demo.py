"""Paint a photograph in every shipped style and a short film, and enlarge a picture: what `make demo` runs."""

import time
from pathlib import Path

import av
import numpy as np
import skimage.data
from PIL import Image

from perceptual import Stylizer, Upscaler, keep_memory
from perceptual.events import finish
from perceptual.motion import Steady
from perceptual.video import convert_video

keep_memory()  # a setting of this process: layers reuse freed memory, which is faster
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

with av.open(str(folder / "film.mp4"), "w") as film:  # the camera pans over the photograph
    stream = film.add_stream("libx264", rate=24)
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    for k in range(48):
        window = np.ascontiguousarray(np.array(photograph)[30:270, 2 * k : 2 * k + 320])
        film.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
    film.mux(stream.encode(None))
paint = Stylizer.load("wave", video=True).stylize
began = time.perf_counter()
finish(convert_video(folder / "film.mp4", folder / "film_wave.mp4", paint, settle=Steady(0.15)))
print(f"Painted a film of 48 frames, 320 x 240 px, in {time.perf_counter() - began:.1f} s")
print(folder.resolve())
