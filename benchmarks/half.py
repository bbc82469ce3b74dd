"""What half precision costs: paintings and enlargements in float16 and bfloat16, optimisation in bfloat16.

python benchmarks/half.py paint PHOTO ...             PSNR against float32 by network and style, the least of all photos
python benchmarks/half.py optimise PHOTO PAINTING     the objective after 100 iterations at 128 px, and seconds

Photos are painted at their upper left 256 x 256 px. Convolutions are computed in half precision; norms compute their
statistics in float32, as on a GPU. The objective is always that in float32, of the best image. `optimise` needs the
weights vgg16-torchvision.
"""

import sys
import time
from dataclasses import replace

import torch

from perceptual import Stylizer, Upscaler, images, psnr
from perceptual.checkpoints import gallery, shipped
from perceptual.config import BASELINE_LOSS, OptimizeConfig
from perceptual.optimize import optimize_style

HALVES = (torch.float16, torch.bfloat16)


@torch.no_grad()
def least(model, photos, *style):
    """The least PSNR over the photos, for each type."""
    rows = []
    for photo in photos:
        exact = model.forward(photo, *style)
        rows.append([psnr(model.forward(photo, *style, dtype=half), exact, color="rgb") for half in HALVES])
    return [min(column) for column in zip(*rows, strict=True)]


def paint(files: list[str]) -> None:
    photos = [images.read(file, levels=True).pixels[..., :256, :256].contiguous() for file in files]
    print("| network | float16, dB | bfloat16, dB |\n| --- | --- | --- |")
    for video in (False, True):
        for style in sorted(gallery()):
            stylizer = Stylizer.load(style, video=video, device="cpu")
            row = least(stylizer, photos, stylizer._weights(None))
            print(f"| {style}{', for video' * video} | {row[0]:.1f} | {row[1]:.1f} |", flush=True)
    small = [photo[..., :64, :64].contiguous() for photo in photos]
    for name in sorted(shipped.networks("upscale")):
        row = least(Upscaler.load(name, device="cpu"), small)
        print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} |", flush=True)


def optimise(photo: str, painting: str) -> None:
    content, style = (images.read(file).pixels for file in (photo, painting))
    layers = (tuple(f"vgg16-torchvision:{each.split(':')[-1]}" for each in each_kind) for each_kind in
              (BASELINE_LOSS.content_layers, BASELINE_LOSS.style_layers))  # fmt: skip
    loss = replace(BASELINE_LOSS, **dict(zip(("content_layers", "style_layers"), layers, strict=True)))
    print("| method | float32 | bfloat16 | ratio | seconds float32 | bfloat16 |\n| --- | --- | --- | --- | --- | --- |")
    for method in ("lbfgs", "adam"):
        found, seconds = [], []
        for precision in ("float32", "bfloat16"):
            config = OptimizeConfig(size=128, iterations=100, method=method, preview_every=0, precision=precision)
            run, began = optimize_style(content, style, loss=loss, config=config), time.monotonic()
            for _ in run.run():
                pass
            seconds.append(time.monotonic() - began)
            exact = optimize_style(content, style, loss=loss, config=replace(config, precision="float32"))
            with torch.no_grad():
                found.append(float(exact.objective(1.0)(run.best)["total"]))
        row = [method, *(f"{each:.4f}" for each in (*found, found[1] / found[0])), *(f"{each:.0f}" for each in seconds)]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("paint", "optimise"):
        sys.exit(__doc__)
    if sys.argv[1] == "paint":
        paint(sys.argv[2:])
    else:
        optimise(*sys.argv[2:4])
