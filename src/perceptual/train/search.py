"""A search over one weight of the objective.

One network is trained for each value of the weight. All other settings are the same. The networks are compared on
photos that are not used for training.

The paper chooses the weight of total variation for each style by cross-validation, between 1e-6 and 1e-4 (section 4.1).
It does not say what was compared. So the search reports every term of the loss and a sheet of images, and the user
chooses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from perceptual import checkpoints, images
from perceptual.config import differences
from perceptual.data import square
from perceptual.errors import ConfigError, TrainingError, shown
from perceptual.files import sha256_of
from perceptual.images import finding
from perceptual.losses import PerceptualLoss
from perceptual.tasks.base import decisive
from perceptual.tasks.style import style_name
from perceptual.tasks.style_recipes import StyleRecipe

WEIGHTS = ("tv_weight", "style_weight", "content_weight", "lattice_weight")
SHOWN = 4
"""Maximum number of photos in the sheet."""


def parse_search(text: str) -> tuple[str, tuple[float, ...]]:
    """Parse the text of --search: "tv_weight=1e-6,1e-5" -> ("tv_weight", (1e-6, 1e-5)).

    Raises:
        ConfigError: the name is not in WEIGHTS, there are fewer than two values, a value is given twice (also
            when six digits are the same, as in the names of the files), or is not a number from 0 to 1e12.
    """
    name, _, numbers = text.partition("=")
    name = name.strip().replace("-", "_")
    try:
        values = tuple(float(number) for number in numbers.split(","))
    except ValueError:
        values = ()
    good = len({f"{value:g}" for value in values}) == len(values) > 1 and all(0 <= value <= 1e12 for value in values)
    if name not in WEIGHTS or not good:
        raise ConfigError(
            f"--search is {shown(text)}: give one of {', '.join(WEIGHTS)} and two or more different numbers from 0 to "
            "1e+12, such as tv_weight=1e-6,1e-5,1e-4."
        )
    return name, values


def trials(out: Path, settings: StyleRecipe, text: str) -> dict[float, tuple[Path, StyleRecipe]]:
    """The runs of a search: {value: (checkpoint to write, settings)}.

    out: the name of the checkpoint without a search: wave.safetensors gives wave_tv_weight_1e-05.safetensors. settings:
        the settings of all runs. text: as in `parse_search`.

    Raises:
        ConfigError: as `parse_search`, or the objective is written as `loss`, which has weights of its own.
    """
    name, values = parse_search(text)
    if settings.loss.loss:
        raise ConfigError("--search changes a weight that --loss replaces: leave --loss out.")
    found = {}
    for value in values:
        changed: dict[str, Any] = {name: value}
        path = out.with_name(f"{out.stem}_{name}_{value:g}{out.suffix}")
        found[value] = path, replace(settings, loss=replace(settings.loss, **changed))
    return found


def read_held_out(folder: Path | None, data: Path | None, size: int) -> Tensor:
    """Read the photos of a folder: the middle square of each, together (N, 3, size, size) in [0, 1].

    folder: the photos for the comparison. data: the folder of the training photos. size: in pixels.

    Raises:
        ConfigError: there is no folder, or one of the folders is inside the other. ImageError: it contains no photos.
    """
    if folder is None:
        raise ConfigError("--search needs photos that are not used for training: add --held-out FOLDER.")
    place, trained = Path(os.path.realpath(folder)), Path(os.path.realpath(data or ""))
    if data is not None and trained in (place, *place.parents):
        raise ConfigError(f"{folder} is inside the training folder {data}: give another folder to --held-out.")
    if data is not None and place in trained.parents:
        raise ConfigError(f"The training folder {data} is inside {folder}: give another folder to --held-out.")
    return torch.cat([square(images.read(file.path).pixels, size) for file in finding.find([folder])])


def check_trained(path: Path, paintings: Sequence[Path], settings: StyleRecipe) -> None:
    """Check that a network that an earlier search trained is one of this search.

    path: its checkpoint. paintings: the files of this search. settings: those of its run.

    Raises:
        TrainingError: it was trained with other settings or paintings. CheckpointError: it is damaged.
    """
    card = checkpoints.read_card(path)
    now = decisive(settings)
    now["network"]["styles"] = len(paintings)
    before = dict(card.settings)
    before["train"] = {key: value for key, value in before.get("train", {}).items() if key in now["train"]}
    if card.began_from:
        before["network"] = now["network"]  # --from decides it
    hashes = [(style_name(painting), sha256_of(painting)) for painting in paintings]
    if list(card.paintings.items()) != hashes:
        raise TrainingError(f"{path} was trained on other paintings: choose another --out, or give --overwrite.")
    for key, (was, value) in differences(before, now).items():
        raise TrainingError(
            f"{path} was trained with {key} {was}, and not {value}: choose another --out, or train all networks again "
            "with --overwrite in place of --resume."
        )


@torch.no_grad()
def compare(
    files: Mapping[float, Path], photographs: Tensor, loss: PerceptualLoss, name: str
) -> tuple[list[dict[str, float]], Tensor]:
    """Compare trained networks. Returns the mean of each unweighted term of `loss` by network, and a sheet of images.

    The sheet is (1, 3, h, w) in [0, 1]. It has one row for each photo, at most SHOWN rows. A row shows the photo, then
    the results of the networks in the order of `files`.

    files: {value of the weight: checkpoint}. photographs: (N, 3, H, W) in [0, 1]. A network with several styles paints
        photo k in style k, modulo the number of styles. loss: on the CPU. name: the weight.

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
