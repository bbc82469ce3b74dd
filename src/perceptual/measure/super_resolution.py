"""Super-resolution measured by the usual protocol: sets of pictures, ways to enlarge them, and a row for each pair.

The pictures are cropped to multiples of the scale, reduced by MATLAB's imresize, enlarged, and compared by PSNR and
SSIM on Y without a border of `scale` pixels (see `metrics`), and by perceptual distances.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perceptual import images
from perceptual.apply.upscaler import Upscaler
from perceptual.devices import choose_device
from perceptual.errors import ConfigError, DataError, ImageError
from perceptual.events import Step
from perceptual.images import finding
from perceptual.losses import weights
from perceptual.losses.networks import DISTANCE_LAYERS
from perceptual.measure import metrics
from perceptual.measure.metrics import PerceptualDistance
from perceptual.resampling import imresize, modcrop

METHODS = {"bicubic": "bicubic", "srcnn": "SRCNN", "pixel": "pixel loss", "feature": "feature loss"}

_SCALE = re.compile(r"(?:[xX]|image_SRF_)(\d+)")  # a folder of one scale
_LOW = re.compile(r"(^|[^a-zA-Z])LR$")

Method = Callable[[Tensor], Tensor]  # (1, 3, h, w) in [0, 1] -> (1, 3, scale * h, scale * w)


class Original(NamedTuple):
    """A high-resolution picture: its name, and how to read it as (1, 1 or 3, H, W) in [0, 1]."""

    name: str
    read: Callable[[], Tensor]


Sets = Mapping[str, Sequence[Original]]


@dataclass(frozen=True)
class Row:
    """One picture enlarged in one way. seconds: of enlarging alone; distances: by name."""

    set: str
    image: str
    scale: int
    method: str
    psnr: float
    ssim: float
    seconds: float
    distances: Mapping[str, float] = field(default_factory=dict)


def read_sets(folder: str | Path, scale: int) -> dict[str, list[Original]]:
    """The pictures of each set in a folder: of its folders, or of itself where it holds pictures.

    A set may keep its pictures in folders x2, x3, x4 (or image_SRF_2 ...): that of `scale` is taken, or the first with
    high-resolution pictures; files that end in LR, and folders that begin so, are low-resolution, which we make
    ourselves.

    Raises:
        DataError: no folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder: give one with pictures, or with folders of them.")
    found: dict[str, list[Path]] = {}
    try:
        pictures = finding.find([folder])
    except ImageError as error:
        raise DataError(f"{folder} holds no picture: give a folder with pictures, or with folders of them.") from error
    for picture in pictures:
        folders = picture.relative.parts[:-1]
        if not _LOW.search(picture.path.stem) and not any(part.startswith("LR") for part in folders):
            above = [part for part in folders if part != "HR" and not _SCALE.fullmatch(part)]
            found.setdefault(above[0] if above else Path(os.path.realpath(folder)).name, []).append(picture.path)
    if not found:
        raise DataError(f"{folder} holds low-resolution pictures (..._LR) only: give the high-resolution ones.")
    chosen = {name: _of_scale(paths, scale) for name, paths in found.items()}
    return {name: [Original(path.stem, partial(_read, path)) for path in paths] for name, paths in chosen.items()}


def _read(path: Path) -> Tensor:
    picture = images.read(path)
    return picture.pixels[:, :1] if picture.grey else picture.pixels


def _of_scale(paths: Sequence[Path], scale: int) -> list[Path]:
    """Of folders x2, x3 ... the one to take; all pictures where there are none."""
    by_scale: dict[int, list[Path]] = {}
    for path in paths:
        if match := _SCALE.fullmatch(path.parent.name):
            by_scale.setdefault(int(match[1]), []).append(path)
    if not by_scale:
        return list(paths)
    return by_scale[scale if scale in by_scale else min(by_scale)]


def bicubic(scale: int) -> Method:
    """MATLAB's imresize of 8-bit pictures."""

    def enlarge(low: Tensor) -> Tensor:
        levels = (low * 255 + 0.5).floor().to(torch.uint8)
        return imresize(levels, float(scale)).float() / 255

    return enlarge


def shipped_methods(scale: int, *, device: str = "auto") -> dict[str, Method]:
    """Bicubic interpolation, and the networks that come with perceptual, by the loss that trained them, or "srcnn".

    At a scale between the networks' own, the next larger one of each, its result made smaller: "pixel, from x4".
    """
    choose_device(device)  # refuses one that is not there
    methods = {"bicubic": bicubic(scale)}
    for loss in METHODS:
        try:
            upscaler = Upscaler.at_scale(scale, loss, device=device)
        except ConfigError:  # none of that loss, or none so large
            continue
        own = upscaler.network.scale
        methods[loss if own == scale else f"{loss}, from x{own}"] = upscaler.upscale
    return methods


def own_methods(networks: Sequence[Path], *, device: str = "auto") -> dict[int, dict[str, Method]]:
    """Trained networks of one's own by scale and file name, or by path where a name is taken."""
    found: dict[int, dict[str, Method]] = {}
    for path in networks:
        upscaler = Upscaler.load(path, device=device)
        group = found.setdefault(upscaler.network.scale, {})
        name = Path(path).stem
        group[str(path) if name in group or name in METHODS else name] = upscaler.upscale
    return found


def distances_at_hand(
    names: Sequence[str] = (), *, paths: Mapping[str, str | Path] | None = None, device: str = "cpu"
) -> dict[str, PerceptualDistance]:
    """The perceptual distances of these names, or of every loss network whose weights are on this computer.

    Raises:
        ConfigError: no such loss network. WeightsError: weights of a named one are missing.
    """
    paths = paths or {}
    known = [*DISTANCE_LAYERS]
    chosen = names or [name for name in known if weights.locate(name, paths.get(name)) is not None]
    found = {}
    for name in chosen:
        distance = PerceptualDistance.lpips(paths=paths) if name == "lpips" else PerceptualDistance(name, paths=paths)
        found[name] = distance.to(choose_device(device))
    return found


def evaluate(
    sets: Sets, methods: Mapping[str, Method], scale: int, *, distances: Mapping[str, PerceptualDistance] | None = None
) -> Generator[Step, None, list[Row]]:
    """Measure each method on each picture; a generator of Steps whose value is the rows.

    A picture that cannot be read, or is too small, is left out, and the last Step says so.

    Raises:
        ImageError: none is left.
    """
    total = sum(map(len, sets.values()))
    rows: list[Row] = []
    left_out: list[ImageError] = []
    done = 0
    for name, originals in sets.items():
        for original in originals:
            done += 1
            try:
                rows += [replace(row, set=name) for row in _measured(original, methods, scale, distances or {})]
            except ImageError as error:
                left_out.append(error)
            else:
                yield Step(done, total)
    if left_out and not rows:
        raise left_out[-1]
    yield Step(total, total, message=f"Left out: {' '.join(map(str, left_out))}" if left_out else None)
    return rows


def _measured(
    original: Original, methods: Mapping[str, Method], scale: int, distances: Mapping[str, PerceptualDistance]
) -> list[Row]:
    high, low = pair(original, scale)
    rows = []
    for method, enlarge in methods.items():
        began = time.perf_counter()
        large = enlarge(low.expand(-1, 3, -1, -1))
        seconds = time.perf_counter() - began
        far = {key: distance(_rounded(large), high) for key, distance in distances.items()}
        values = [measure(large, high, border=scale) for measure in (metrics.psnr, metrics.ssim)]
        rows.append(Row("", original.name, scale, method, values[0], values[1], seconds, far))
    return rows


def pair(original: Original, scale: int) -> tuple[Tensor, Tensor]:
    """A picture cropped to multiples of the scale, and its reduction: (1, 1 or 3, H, W) in [0, 1] both.

    Raises:
        ImageError: it cannot be read, or is smaller than SSIM's window allows.
    """
    pixels = modcrop(original.read(), scale)
    if min(pixels.shape[-2:]) < 11 + 2 * scale:
        raise ImageError(f"{original.name} is too small to be measured at x{scale}: leave it out.")
    levels = (pixels * 255 + 0.5).floor().to(torch.uint8)
    return levels.float() / 255, imresize(levels, 1 / scale).float() / 255


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The means over the pictures of each set, by set and method, as dictionaries."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.set, row.method), []).append(row)
    table = []
    for (name, method), group in groups.items():
        line: dict[str, Any] = {"set": name, "images": len(group), "method": method}
        line |= {key: sum(getattr(row, key) for row in group) / len(group) for key in ("psnr", "ssim", "seconds")}
        for key in group[0].distances:
            line[key] = sum(row.distances[key] for row in group) / len(group)
        table.append(line)
    return table


def _rounded(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255 + 0.5).floor() / 255
