"""How fast videos are painted, reading and writing them included.

python benchmarks/video.py [WIDTHxHEIGHT ...]      320x240 640x360 512x512 1280x720 when left out

Videos of H.264 with sound are made of a photograph that drifts. All sides take turns on the same video, three rounds;
the first frames of each, which pay for starting, are not counted. Frames a second, medians:

video      `perceptual video`: read, painted by the shipped network for video, steadied and written
unsteady   the same without steadying
painting   the painting alone, of frames that lie in memory
copying    reading and writing alone
plain      what most code does: frame after frame is read, put through the network by plain PyTorch in float32, written

The last columns: video / painting, which is 1 where reading, steadying and writing cost nothing, and video / plain.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import skimage.data
import torch

from perceptual import Stylizer, images
from perceptual.config import STEADY_PAINTING, VideoConfig
from perceptual.fast import prepare_kernels
from perceptual.memory import keep_memory
from perceptual.motion import Steady
from perceptual.video import Conversion, Reader

FRAMES, UNCOUNTED, ROUNDS, STYLE = 32, 8, 3, "wave"


def make_video(path: Path, width: int, height: int) -> None:
    """A photograph that drifts by 1 pixel a frame, 30 frames a second, with a tone."""
    picture = images.from_any(skimage.data.astronaut())
    scale = max((width + FRAMES) / 512, height / 512)
    large = images.resize(picture, size=(round(512 * scale), round(512 * scale) + 1))
    levels = (large[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    with av.open(str(path), "w") as out:
        track, sound = out.add_stream("libx264", rate=30), out.add_stream("aac", rate=48_000, layout="mono")
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        for k in range(FRAMES):
            window = np.ascontiguousarray(levels[:height, k : k + width])
            out.mux(track.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
            tone = np.sin(np.arange(1600 * k, 1600 * (k + 1)) * 2 * np.pi * 440 / 48_000)
            block = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = 48_000, 1600 * k
            out.mux(sound.encode(block))
        out.mux(track.encode(None))
        out.mux(sound.encode(None))


def rate_of(ticks: Iterator[object]) -> float:
    """Frames a second of what yields once a frame, the first ones left out, and the end counted."""
    times = [time.perf_counter() for _ in ticks][:FRAMES]
    return (FRAMES - UNCOUNTED) / (time.perf_counter() - times[UNCOUNTED - 1])


def converted(path: Path, stylizer: Stylizer | None, steady: float) -> Iterator[object]:
    """Steps of a conversion as the command makes it."""
    convert = (lambda pixels: pixels) if stylizer is None else stylizer.stylize
    settle = Steady(steady) if steady else None
    conversion = Conversion(path, path.with_name("out.mp4"), convert, settle=settle, config=VideoConfig())
    conversion.at_once = None if stylizer is None else stylizer.at_once
    return (step for step in conversion.run() if step.index)


def painted(path: Path, stylizer: Stylizer) -> Iterator[object]:
    """The painting alone."""
    with Reader(path) as reader:
        frames = [frame.pixels.clone() for frame in reader]
    return (stylizer.stylize(frame) for frame in frames)


def plainly(path: Path, network: torch.nn.Module, style: torch.Tensor) -> Iterator[object]:
    """One thing after the other, in plain PyTorch."""
    with av.open(str(path)) as source, av.open(str(path.with_name("out.mp4")), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height = source.streams.video[0].width, source.streams.video[0].height
        stream.pix_fmt = "yuv420p"
        for frame in source.decode(video=0):
            x = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                y = network(x, style).clamp(0, 1)
            levels = (y[0].permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).numpy()
            out.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
            yield levels
        out.mux(stream.encode(None))


def measure(path: Path) -> dict[str, float]:
    """Frames a second of every side, medians over the rounds."""
    stylizer = Stylizer.load(STYLE, video=True)
    network = Stylizer.load(STYLE, video=True).network.to(memory_format=torch.contiguous_format)
    style = torch.zeros(1, network.styles)
    style[0, list(stylizer.blend)] = 1
    sides: dict[str, Callable[[], Iterator[object]]] = {
        "video": lambda: converted(path, stylizer, STEADY_PAINTING),
        "unsteady": lambda: converted(path, stylizer, 0),
        "painting": lambda: painted(path, stylizer),
        "copying": lambda: converted(path, None, 0),
        "plain": lambda: plainly(path, network, style),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _, (name, side) in itertools.product(range(ROUNDS), sides.items()):
        rates[name].append(rate_of(side()))
    return {name: statistics.median(values) for name, values in rates.items()}


if __name__ == "__main__":
    keep_memory()
    prepare_kernels()
    print("| size | video | unsteady | painting | copying | plain | video / painting | video / plain |")
    print("| --- |" + " --- |" * 7)
    for size in sys.argv[1:] or ("320x240", "640x360", "512x512", "1280x720"):
        width, height = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            make_video(path, width, height)
            found = measure(path)
        ratios = found["video"] / found["painting"], found["video"] / found["plain"]
        print(
            f"| {size} | {' | '.join(f'{v:.1f}' for v in found.values())} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
            flush=True,
        )
