"""Paint a photo in every shipped style, enlarge a small picture, and paint a short video: `make demo` runs this."""

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
photo = Image.fromarray(skimage.data.chelsea())  # a cat by Stefan van der Walt, in the public domain
photo.save(folder / "chelsea.png")

stylizer = Stylizer.load("gallery")
began = time.perf_counter()
for style in stylizer.styles:
    stylizer(photo, style=style).save(folder / f"chelsea_{style}.png")
seconds = time.perf_counter() - began

width, height = photo.size
print(f"Painted {width} x {height} px in {len(stylizer.styles)} styles, {seconds / len(stylizer.styles):.2f} s each:")

small = photo.resize((width // 4, height // 4), Image.Resampling.BICUBIC)
small.save(folder / "small.png")
for loss in ("pixel", "feature"):
    began = time.perf_counter()
    Upscaler.at_scale(4, loss)(small).save(folder / f"small_x4_{loss}.png")
    print(f"Enlarged {small.width} x {small.height} px four times, {loss} loss, {time.perf_counter() - began:.2f} s")

with av.open(str(folder / "video.mp4"), "w") as video:  # the camera moves over the photo
    stream = video.add_stream("libx264", rate=24)
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    for k in range(48):
        window = np.ascontiguousarray(np.array(photo)[30:270, 2 * k : 2 * k + 320])
        video.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
    video.mux(stream.encode(None))
paint = Stylizer.load("wave", video=True).stylize
began = time.perf_counter()
finish(convert_video(folder / "video.mp4", folder / "video_wave.mp4", paint, settle=Steady(0.15)))
print(f"Painted a video of 48 frames, 320 x 240 px, in {time.perf_counter() - began:.1f} s")
print(folder.resolve())
print("To do this with your own photos in the browser: .venv/bin/perceptual studio")
