"""Checkerboards and frames: what a network adds that no painting has, for every shipped style.

python benchmarks/artefacts.py FOLDER [NETWORK ...]      FOLDER holds photographs, squared to 384 px

checkerboard  A network that doubles sizes twice can repeat itself every 2 or 4 px. The power spectrum of the painting's
              luma at those frequencies (multiples of a quarter of the sampling frequency, in x or y) over that of the
              frequencies beside them: 1 is no pattern, in the painting as in any photograph.
frame         Mean and spread of the luma at the edge of the painting, over those more than 48 px inside. This is
              divided by the same of the painting of a photograph that is 64 px larger on each side, at the same
              place: 1 is no frame. For the outermost pixels and for the outer 16 px; medians over the photographs.
flat squares  The share of 16 x 16 squares whose luma hardly varies (by less than 1 in 255): pale patches.
"""

import sys

import torch

from perceptual import Stylizer
from perceptual.checkpoints import shipped
from perceptual.data import Photographs
from perceptual.functional import luma
from perceptual.measure.style import checkerboard

SIDE, MORE, DEEP = 256, 64, 48


def edge(picture: torch.Tensor) -> torch.Tensor:
    """(4,): mean and spread of the luma on the outermost pixels, then on the outer 16 px, over those further inside."""
    gray, found = luma(picture)[0, 0], []
    inside = gray[DEEP:-DEEP, DEEP:-DEEP]
    for width in (1, 16):
        ring = torch.ones_like(gray, dtype=torch.bool)
        ring[width:-width, width:-width] = False
        found += [gray[ring].mean() / inside.mean(), gray[ring].std() / inside.std()]
    return torch.stack(found).clamp_min(1e-3)


def flat(picture: torch.Tensor) -> float:
    """The share of 16 x 16 squares whose luma hardly varies."""
    squares = luma(picture)[0, 0].unfold(0, 16, 16).unfold(1, 16, 16)
    return float((squares.std(dim=(2, 3)) < 1 / 255).float().mean())


def measure(name: str, photographs: list[torch.Tensor]) -> None:
    """Print one row for each style of a network."""
    inner = [crop(p) for p in photographs]
    own_check, own_flat = (sum(map(each, inner)) / len(inner) for each in (checkerboard, flat))
    stylizer = Stylizer.load(name)
    for style in stylizer.styles:
        painted = [stylizer.stylize(p, style=style) for p in inner]
        larger = [crop(stylizer.stylize(p, style=style)) for p in photographs]
        check, patches = (sum(map(each, painted)) / len(painted) for each in (checkerboard, flat))
        ratios = [edge(p) / edge(q) for p, q in zip(painted, larger, strict=True)]
        frame = " | ".join(f"{value:.3f}" for value in torch.stack(ratios).median(0).values)
        print(f"| {style} | {check:.2f} ({own_check:.2f}) | {frame} | {patches:.3f} ({own_flat:.3f}) |", flush=True)


def crop(picture: torch.Tensor) -> torch.Tensor:
    return picture[..., MORE:-MORE, MORE:-MORE].contiguous()


if __name__ == "__main__":
    folder, names = sys.argv[1], sys.argv[2:] or [str(path) for path in shipped.networks("style").values()]
    dataset = Photographs(folder, SIDE + 2 * MORE, crop="squash")
    pictures = [dataset[k][0][None] for k in range(len(dataset))]
    print(f"{len(pictures)} photographs, the middle {SIDE} px; checkerboard and frame: 1 is none")
    print(
        "| style | checkerboard (photographs) | outermost px: luma | spread | outer 16 px: luma | spread "
        "| flat squares (photographs) |"
    )
    print("| --- " * 7 + "|")
    for name in names:
        measure(name, pictures)
