"""Make the pictures under docs/ from scikit-image's free photographs: python examples/pictures.py"""

from pathlib import Path

import skimage.data
import torch

from perceptual import Stylizer, images

docs = Path(__file__).parents[1] / "docs"
stylizer = Stylizer.load("starry_night")


def row(pictures: list[torch.Tensor], height: int) -> torch.Tensor:
    """Pictures (1, 3, h, w) side by side at one height."""
    return torch.cat(
        [images.resize(p, size=(height, round(p.shape[3] * height / p.shape[2]))) for p in pictures], dim=3
    )


photographs = [images.from_any(getattr(skimage.data, name)()) for name in ("chelsea", "astronaut", "coffee")]
photographs = [images.resize(p, shorter_side=384) for p in photographs]
paintings = [stylizer.stylize(p) for p in photographs]
images.write(docs / "starry_night.png", torch.cat([row(photographs, 288), row(paintings, 288)], dim=2))

steps = [stylizer.stylize(photographs[1], strength=s) for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
images.write(docs / "strength.png", row([*steps, stylizer.stylize(photographs[1], keep_colors=True)], 224))
