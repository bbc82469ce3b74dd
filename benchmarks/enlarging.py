"""What compiled enlarging and working on several frames at once bring to super-resolution on a CPU.

python benchmarks/enlarging.py [--rounds 15]

The first table: seconds for a picture of 8 bits, with PyTorch's operations around the convolutions and with one
compiled pass (fast/enlarge.c). The second: frames per second of a video of 640 x 360 that x2_video enlarges to
1280 x 720, with reading and writing, without steadying. There all cores share each frame, or each core has a frame of
its own. All sides are measured in turn; medians.
"""

import argparse
import tempfile
import time
from pathlib import Path

import skimage.data
import torch
from timing import in_turn
from torch import Tensor

from perceptual import Upscaler, images
from perceptual.apply import upscaler as module
from perceptual.config import VideoConfig
from perceptual.video import Conversion, Recorder

FRAMES, FIRST = 90, 10
PICTURES = (("x2_video", 360, 640), ("x2_photo", 360, 640), ("x4_pixel", 256, 256), ("x8_pixel", 128, 128))


def picture(height: int, width: int) -> Tensor:
    return (images.resize(images.from_any(skimage.data.astronaut()), size=(height, width)) * 255).round().byte()


def without_kernels(upscaler: Upscaler, levels: Tensor) -> Tensor:
    kept, module.enlarges = module.enlarges, lambda network: False
    try:
        return upscaler.upscale(levels)
    finally:
        module.enlarges = kept


def rate(path: Path, upscaler: Upscaler, at_once: int) -> float:
    """Frames per second, without the first ones."""
    conversion = Conversion(path, path.with_name("large.mp4"), upscaler.upscale, config=VideoConfig(steady=0))
    conversion.at_once = lambda height, width: at_once
    times = [time.perf_counter() for step in conversion.run() if step.index]
    return (len(times) - FIRST) / (times[-1] - times[FIRST - 1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads\n")
    print("| network, picture | PyTorch | compiled | ratio |\n| --- | --- | --- | --- |")
    for name, height, width in PICTURES:
        upscaler, levels = Upscaler.load(name), picture(height, width)
        sides = {
            "plain": lambda u=upscaler, x=levels: without_kernels(u, x),
            "compiled": lambda u=upscaler, x=levels: u.upscale(x),
        }
        for side in sides.values():
            side()
        times = in_turn(sides, rounds=rounds)
        ratio = times["plain"] / times["compiled"]
        print(
            f"| {name}, {width} x {height} | {times['plain']:.3f} s | {times['compiled']:.3f} s | {ratio:.2f} |",
            flush=True,
        )
    upscaler = Upscaler.load("x2_video")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.mp4"
        recorder, drifting = Recorder(path), picture(400, 700)
        for k in range(FRAMES):
            recorder.write(drifting[..., k % 40 : k % 40 + 360, k % 50 : k % 50 + 640].contiguous(), k / 30)
        recorder.finish()
        many = upscaler.at_once(360, 640)
        found: dict[int, list[float]] = {1: [], many: []}
        for _ in range(max(3, rounds // 5)):
            for at_once, rates in found.items():
                rates.append(rate(path, upscaler, at_once))
    middle = {at_once: sorted(rates)[len(rates) // 2] for at_once, rates in found.items()}
    print("\n| frames at once | frames per second |\n| --- | --- |")
    for at_once, value in middle.items():
        print(f"| {at_once} | {value:.1f} |")
    print(f"\nratio {middle[many] / middle[1]:.2f}")


if __name__ == "__main__":
    main()
