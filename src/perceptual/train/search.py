"""A search over one weight of the objective: networks trained alike but for it, compared on photographs held out.

The paper chooses the weight of total variation for each style by cross-validation, between 1e-6 and 1e-4 (section 4.1).
It does not print what was compared, so this gives every term and the pictures, and leaves the choice to the eye.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from perceptual import checkpoints, images
from perceptual.data import square
from perceptual.errors import ConfigError, shown
from perceptual.images import finding
from perceptual.losses import PerceptualLoss
from perceptual.tasks.style_recipes import StyleRecipe

WEIGHTS = ("tv_weight", "style_weight", "content_weight", "lattice_weight")
SHOWN = 4
"""Photographs in the sheet, at most."""


def parse_search(text: str) -> tuple[str, tuple[float, ...]]:
    """("tv_weight", (1e-6, 1e-5)) of "tv_weight=1e-6,1e-5".

    Raises:
        ConfigError: another weight, fewer than two values, one twice, or one that is no number from 0 to 1e12.
    """
    name, _, numbers = text.partition("=")
    name = name.strip().replace("-", "_")
    try:
        values = tuple(float(number) for number in numbers.split(","))
    except ValueError:
        values = ()
    good = len(set(values)) == len(values) > 1 and all(0 <= value <= 1e12 for value in values)
    if name not in WEIGHTS or not good:
        raise ConfigError(
            f"--search is {shown(text)}: give one of {', '.join(WEIGHTS)} and two or more numbers from 0 to 1e+12, "
            "such as tv_weight=1e-6,1e-5,1e-4."
        )
    return name, values


def trials(out: Path, settings: StyleRecipe, text: str) -> dict[float, tuple[Path, StyleRecipe]]:
    """For each value of a search its checkpoint, such as wave_tv_weight_1e-05.safetensors, and its settings.

    Raises:
        ConfigError: as `parse_search`.
    """
    name, values = parse_search(text)
    found = {}
    for value in values:
        changed: dict[str, Any] = {name: value}
        path = out.with_name(f"{out.stem}_{name}_{value:g}{out.suffix}")
        found[value] = path, replace(settings, loss=replace(settings.loss, **changed))
    return found


def read_held_out(folder: Path | None, data: Path | None, size: int) -> Tensor:
    """The photographs of a folder, (N, 3, size, size) in [0, 1]: the middle square of each.

    Raises:
        ConfigError: no folder, or one inside `data`, which is trained on. ImageError: no photographs in it.
    """
    if folder is None:
        raise ConfigError("--search compares on photographs that are not trained on: add --held-out FOLDER.")
    place, trained = Path(os.path.realpath(folder)), Path(os.path.realpath(data or ""))
    if data is not None and trained in (place, *place.parents):
        raise ConfigError(f"{folder} lies in {data}, which is trained on: give another folder to --held-out.")
    return torch.cat([square(images.read(file.path).pixels, size) for file in finding.find([folder])])


@torch.no_grad()
def compare(
    files: Mapping[float, Path], photographs: Tensor, loss: PerceptualLoss, name: str
) -> tuple[list[dict[str, float]], Tensor]:
    """The mean of every term of `loss`, unweighted, for each trained network; and a sheet of pictures.

    files: checkpoints by the value of the weight `name`. photographs: (N, 3, H, W) in [0, 1]; the styles of a network
    take turns. loss: on the CPU. The sheet is (1, 3, h, w): a row for each photograph, SHOWN at most, with the
    photograph first and then the paintings in the order of `files`.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    rows, columns = [], [photographs[:SHOWN]]
    for value, path in files.items():
        network = checkpoints.load(path, task="style")[0].eval()
        sums: dict[str, float] = {}
        paintings = []
        for k, photograph in enumerate(photographs):
            style = one_hot(torch.tensor([k % network.styles]), network.styles).float()
            painted = network(photograph[None], style).clamp(0, 1)
            for term, mean in loss(painted, photograph[None], style).items():
                sums[term] = sums.get(term, 0.0) + float(mean) / len(photographs)
            paintings += [painted] if k < SHOWN else []
        rows.append({name: value, **{term: mean for term, mean in sums.items() if term != "total"}})
        columns.append(torch.cat(paintings))
    lines = [torch.cat([column[k] for column in columns], dim=2) for k in range(len(columns[0]))]
    return rows, torch.cat(lines, dim=1)[None]
