"""How much of the painting's style and of the photograph a style network keeps, on large photographs.

python benchmarks/yardstick.py NETWORK PAINTINGS PHOTOS [SIDE] [--styles NAME ...]

NETWORK is a shipped name or a trained file. PAINTINGS: a folder of paintings under the names of the styles. PHOTOS: a
folder of at least two photographs; their longer side becomes SIDE (512) pixels. The loss network is torchvision's
VGG-16, found by PERCEPTUAL_WEIGHTS. Means over the photographs, less is better:

style    Gram matrices of relu1_2, relu2_2, relu3_3 and relu4_3: the squared distance to those of the painting, as a
         share of the photograph's own distance to it; mean of the layers. The painting has a longer side of 256, 384,
         512, 768 or 1,024 px, whichever fits best.
half     the same with all pictures at half their size: large strokes and shapes, without the grain of the canvas
content  squared distance of relu3_3 to the photograph's, as a share of the distance between it and the next photograph
grid     power of the luma at periods of 2 and 4 px over that of the frequencies beside them; 1 is no grid

A picture that is the photograph itself has style 1 and content 0, so read both together.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from perceptual import Stylizer, images
from perceptual.checkpoints import find_style
from perceptual.functional import gram_matrix
from perceptual.losses import LossNetworks
from perceptual.measure.style import checkerboard

LAYERS = [f"vgg16-torchvision:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3")]
SIDES = (256, 384, 512, 768, 1024)


def read(path: Path, side: int) -> Tensor:
    """(1, 3, H, W) in [0, 1], with a longer side of `side` pixels."""
    image = Image.open(path).convert("RGB")
    ratio = side / max(image.size)
    size = round(image.width * ratio), round(image.height * ratio)
    return images.from_any(image.resize(size, Image.Resampling.LANCZOS))


def half(picture: Tensor) -> Tensor:
    return F.interpolate(picture, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


def left(before: list[Tensor], after: list[Tensor], paintings: list[list[Tensor]]) -> float:
    """What is left of the photograph's distance to the painting of the best size."""

    def share(painting: list[Tensor]) -> float:
        parts = zip(before, after, painting, strict=True)
        return float(np.mean([float((a - p).square().sum() / (b - p).square().sum()) for b, a, p in parts]))

    return min(map(share, paintings))


def grid(picture: Tensor) -> float:
    height, width = (side // 4 * 4 for side in picture.shape[2:])
    return checkerboard(picture[..., :height, :width])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("paintings", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("side", type=int, nargs="?", default=512)
    parser.add_argument("--styles", nargs="+")
    chosen = parser.parse_args()
    stylizer, networks = Stylizer.load(find_style(chosen.network)[0]), LossNetworks(LAYERS)

    def features(picture: Tensor) -> list[Tensor]:
        found = networks(picture, LAYERS)
        return [found[layer] for layer in LAYERS]

    def grams(picture: Tensor) -> list[Tensor]:
        return [gram_matrix(each) for each in features(picture)]

    photos = [read(path, chosen.side) for path in sorted(chosen.photos.iterdir())]
    own, seen, halved = [], [], []
    for photo in photos:
        found = features(photo)
        own.append([gram_matrix(each) for each in found])
        seen.append(found[2])
        halved.append(grams(half(photo)))
    print(f"{chosen.network}: means over {len(photos)} photographs of {chosen.side} px")
    print("| style | style | half | content | grid |\n| --- | --- | --- | --- | --- |")
    files = {path.stem: path for path in chosen.paintings.iterdir()}
    for style in chosen.styles or stylizer.styles:
        paintings = [read(files[style], side) for side in SIDES]
        wanted, smaller = [grams(each) for each in paintings], [grams(half(each)) for each in paintings[1:]]
        rows = []
        for k, photo in enumerate(photos):
            painted = images.unit(stylizer.stylize((photo * 255).round().to(torch.uint8), style=style))
            found = features(painted)
            style_left = left(own[k], [gram_matrix(each) for each in found], wanted)
            half_left = left(halved[k], grams(half(painted)), smaller)
            other = seen[(k + 1) % len(photos)]
            height, width = (min(a, b) for a, b in zip(seen[k].shape[2:], other.shape[2:], strict=True))
            between = (other[..., :height, :width] - seen[k][..., :height, :width]).square().mean()
            content = float((found[2] - seen[k]).square().mean() / between)
            rows.append((style_left, half_left, content, grid(painted)))
        print(f"| {style} | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, 0)) + " |", flush=True)


if __name__ == "__main__":
    main()
