"""A sheet of pictures with a label below each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from perceptual.images.picture import resize, to_kind_of


def sheet_size(count: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a `labelled_sheet` of so many pictures that are (height, width) each."""
    return -(-count // columns) * (height + _strip(width)), columns * width


def labelled_sheet(pictures: Sequence[tuple[str, Tensor]], columns: int, width: int) -> Tensor:
    """Pictures row by row with their labels below, on white: (1, 3, H, W) in [0, 1].

    pictures: (label, (1, 3, h, w) in [0, 1]), at least one; they are shown as high as the first. width: of each picture
    in the sheet, in pixels.
    """
    first_height, first_width = pictures[0][1].shape[-2:]
    high, strip = max(1, round(width * first_height / first_width)), _strip(width)
    height, whole = sheet_size(len(pictures), columns, high, width)
    page = Image.new("RGB", (whole, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(max(8, width // 14))
    for k, (label, picture) in enumerate(pictures):
        left, top = k % columns * width, k // columns * (high + strip)
        cell = Image.new("RGB", (width, high))
        page.paste(to_kind_of(resize(picture, size=(high, width)), like=cell), (left, top))
        draw.text((left + width // 2, top + high + strip // 2), label, "black", font, anchor="mm")
    return torch.from_numpy(np.array(page)).permute(2, 0, 1)[None].float() / 255


def _strip(width: int) -> int:
    """Height of the strip for a label below a picture of that width."""
    return max(12, width // 9)
