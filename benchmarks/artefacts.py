"""Checkerboards and frames: what a network adds that no painting has, for every shipped style.

python benchmarks/artefacts.py FOLDER [NETWORK ...]      FOLDER holds photographs, squared to 256 px

checkerboard  A network that doubles sizes twice can repeat itself every 2 or 4 px. The power spectrum of the painting's
              luma at those frequencies (multiples of a quarter of the sampling frequency, in x or y) over that of the
              frequencies beside them: 1 is no pattern, in the painting as in any photograph.
frame         Per ring of pixels from the edge inwards: the mean and the spread of the luma there over those 16 to 32 px
              inside, each divided by the same of the photograph: 1 is no frame. The worst of the rings 0 to 3 is shown.
outer 16 px   The same for the outer 16 px in one piece, over those of 16 to 48 px inside.
flat squares  The share of 16 x 16 squares whose luma hardly varies (by less than 1 in 255): pale patches.
"""

import sys

import torch

from perceptual import Stylizer
from perceptual.checkpoints import shipped
from perceptual.data import Photographs
from perceptual.functional import luma
from perceptual.measure.style import checkerboard


def rings(picture: torch.Tensor) -> torch.Tensor:
    """(5, 2): mean and spread of the luma on the rings 0 to 3 from the edge, over those of 16 to 32 px inside.

    The last row is for the outer 16 px, over those of 16 to 48 px inside.
    """
    gray = luma(picture)[0, 0]

    def ring(first: int, last: int) -> torch.Tensor:
        mask = torch.zeros_like(gray, dtype=torch.bool)
        mask[first : len(mask) - first, first : mask.shape[1] - first] = True
        mask[last : len(mask) - last, last : mask.shape[1] - last] = False
        return torch.stack([gray[mask].mean(), gray[mask].std()]).clamp_min(1e-3)

    inside = ring(16, 32)
    return torch.stack([*(ring(k, k + 1) / inside for k in range(4)), ring(0, 16) / ring(16, 48)])


def flat(picture: torch.Tensor) -> float:
    """The share of 16 x 16 squares whose luma hardly varies."""
    squares = luma(picture)[0, 0].unfold(0, 16, 16).unfold(1, 16, 16)
    return float((squares.std(dim=(2, 3)) < 1 / 255).float().mean())


def measure(name: str, photographs: list[torch.Tensor]) -> None:
    """Print one row for each style of a network."""
    own_check = sum(map(checkerboard, photographs)) / len(photographs)
    own_flat = sum(map(flat, photographs)) / len(photographs)
    own_rings = torch.stack([rings(p) for p in photographs])
    stylizer = Stylizer.load(name)
    for style in stylizer.styles:
        painted = [stylizer.stylize(p, style=style) for p in photographs]
        check = sum(map(checkerboard, painted)) / len(painted)
        ratio = (torch.stack([rings(p) for p in painted]) / own_rings).log().median(0).values
        worst = ratio[:4].gather(0, ratio[:4].abs().argmax(0, keepdim=True))[0].exp()
        outer = ratio[4].exp()
        patches = sum(map(flat, painted)) / len(painted)
        print(
            f"| {style} | {check:.2f} ({own_check:.2f}) | {worst[0]:.3f} | {worst[1]:.3f} "
            f"| {outer[0]:.3f} | {outer[1]:.3f} | {patches:.3f} ({own_flat:.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    folder, names = sys.argv[1], sys.argv[2:] or [str(path) for path in shipped.networks("style").values()]
    dataset = Photographs(folder, 256, crop="squash")
    pictures = [dataset[k][0][None] for k in range(len(dataset))]
    print(f"{len(pictures)} photographs at 256 px; checkerboard and frame: 1 is none")
    print(
        "| style | checkerboard (photographs) | frame: luma | frame: spread | outer 16 px: luma | outer 16 px: spread "
        "| flat squares (photographs) |"
    )
    print("| --- " * 7 + "|")
    for name in names:
        measure(name, pictures)
