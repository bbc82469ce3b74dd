"""Measures super-resolution by the usual protocol: every method enlarges every image of some data sets.

Images are cropped to multiples of the scale, reduced by MATLAB's imresize and enlarged. The result is compared with the
original by PSNR and SSIM on Y without a border of `scale` pixels (see `metrics`), and by perceptual distances.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean
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
from perceptual.losses.architectures import DISTANCE_LAYERS
from perceptual.measure import metrics
from perceptual.measure.metrics import PerceptualDistance
from perceptual.resampling import imresize, modcrop

METHODS = {
    **{"bicubic": "bicubic", "srcnn": "SRCNN", "pixel": "pixel loss", "feature": "feature loss"},
    **{"photo": "for photos", "video": "for video"},
}

_SCALE = re.compile(r"(?:[xX]|image_SRF_)(\d+)")  # a folder of one scale
_LOW = re.compile(r"(^|[^a-zA-Z])LR$")

Method = Callable[[Tensor], Tensor]  # (1, 3, h, w) in [0, 1] -> (1, 3, scale * h, scale * w)


class Original(NamedTuple):
    """A high-resolution image. read: returns its pixels (1, 1 or 3, H, W) in [0, 1]."""

    name: str
    read: Callable[[], Tensor]


Sets = Mapping[str, Sequence[Original]]


@dataclass(frozen=True)
class Row:
    """The result of one method for one image.

    psnr in dB; ssim; seconds: time of the enlargement only; distances: perceptual distances by name.
    """

    set: str
    image: str
    scale: int
    method: str
    psnr: float
    ssim: float
    seconds: float
    distances: Mapping[str, float] = field(default_factory=dict)


def read_sets(folder: str | Path, scale: int) -> dict[str, list[Original]]:
    """The data sets in a folder, as {name: images}: one for each subfolder, or the folder itself if it has images.

    A data set may have folders x2, x3, x4 (or image_SRF_2 ...). The folder of `scale` is used, or the one of the
    smallest scale. Files that end in LR and folders that start with LR contain low-resolution images. They are skipped,
    because the low-resolution images are computed here.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder: give a folder of images, or of subfolders with images.")
    found: dict[str, list[Path]] = {}
    try:
        files = finding.find([folder])
    except ImageError as error:
        raise DataError(f"{folder} contains no images: give a folder of images, or of subfolders with them.") from error
    for file in files:
        folders = file.relative.parts[:-1]
        if not _LOW.search(file.path.stem) and not any(part.startswith("LR") for part in folders):
            above = [part for part in folders if part != "HR" and not _SCALE.fullmatch(part)]
            name = above[0] if above else Path(os.path.realpath(folder)).name
            found.setdefault(finding.label(name), []).append(file.path)
    if not found:
        raise DataError(f"{folder} contains only low-resolution images (..._LR): give the high-resolution ones.")
    chosen = {name: _of_scale(paths, scale) for name, paths in found.items()}
    return {
        name: [Original(finding.label(path.stem), partial(_read, path)) for path in paths]
        for name, paths in chosen.items()
    }


def _read(path: Path) -> Tensor:
    picture = images.read(path)
    return picture.pixels[:, :1] if picture.grey else picture.pixels


def _of_scale(paths: Sequence[Path], scale: int) -> list[Path]:
    """The files of the folder to use among x2, x3 ...; all files if there are no such folders."""
    by_scale: dict[int, list[Path]] = {}
    for path in paths:
        if match := _SCALE.fullmatch(path.parent.name):
            by_scale.setdefault(int(match[1]), []).append(path)
    if not by_scale:
        return list(paths)
    return by_scale[scale if scale in by_scale else min(by_scale)]


def bicubic(scale: int) -> Method:
    """A method that enlarges 8-bit images by MATLAB's imresize."""

    def enlarge(low: Tensor) -> Tensor:
        levels = (low * 255 + 0.5).floor().to(torch.uint8)
        return imresize(levels, float(scale)).float() / 255

    return enlarge


def shipped_methods(scale: int, *, device: str = "auto") -> dict[str, Method]:
    """Bicubic interpolation and the shipped networks, by the loss that they were trained with, or "srcnn".

    For a scale between those of the networks, the next larger network is used and its result is reduced; the name is
    then, for example, "pixel, from x4".

    Raises:
        ConfigError: there is no such device.
    """
    choose_device(device)  # raises a ConfigError if the device is missing
    methods = {"bicubic": bicubic(scale)}
    for loss in METHODS:
        try:
            name = Upscaler.name_at(scale, loss)
        except ConfigError:  # no network of this loss, or none with a scale this large
            continue
        if not name.endswith(loss):  # video is pixel at the larger scales
            continue
        upscaler = Upscaler.load(name, device=device, scale=scale)
        own = upscaler.network.scale
        methods[loss if own == scale else f"{loss}, from x{own}"] = upscaler.upscale
    return methods


def own_methods(networks: Sequence[Path], *, device: str = "auto") -> dict[int, dict[str, Method]]:
    """Trained networks as {scale: {name: method}}. The name is the file name, or the whole path if the file name is
    used twice.

    Raises:
        CheckpointError: a file is not a checkpoint of a super-resolution network.
    """
    found: dict[int, dict[str, Method]] = {}
    for path in networks:
        upscaler = Upscaler.load(path, device=device)
        group = found.setdefault(upscaler.network.scale, {})
        name = finding.label(Path(path).stem)
        group[str(path) if name in group or name in METHODS else name] = upscaler.upscale
    return found


def distances_at_hand(
    names: Sequence[str] = (), *, paths: Mapping[str, str | Path] | None = None, device: str = "cpu"
) -> dict[str, PerceptualDistance]:
    """The perceptual distances with these names. By default those of all loss networks with weights here.

    names: loss networks, or "lpips" (of AlexNet), "lpips@vgg", "lpips@squeeze". paths: weight files by network name,
        for networks that are not in the cache.

    Raises:
        ConfigError: there is no such loss network. WeightsError: the weights of a named network are missing.
    """
    paths = paths or {}
    known = [name for name in DISTANCE_LAYERS if name in weights.PRETRAINED and not name.endswith("-torchvision")]
    chosen = names or [name for name in known if weights.locate(name, paths.get(name)) is not None]
    found = {}
    for name in chosen:
        kind, _, network = name.partition("@")
        if kind == "lpips":
            name = f"lpips@{network or 'alex'}"
            distance = PerceptualDistance.lpips(network or "alex", paths=paths)
        else:
            distance = PerceptualDistance(name, paths=paths)
        found[name] = distance.to(choose_device(device))
    return found


def evaluate(
    sets: Sets,
    methods: Mapping[str, Method],
    scale: int,
    *,
    distances: Mapping[str, PerceptualDistance] | None = None,
    skipped: list[ImageError] | None = None,
) -> Generator[Step, None, list[Row]]:
    """Measure each method on each image. A generator of Steps that returns the rows.

    sets: originals by name of the data set. methods: functions that enlarge, by name. scale: 2 or more. distances:
        perceptual distances by name. skipped: a list that gets an error for each skipped image.

    Images that cannot be read or are too small are skipped; the last Step lists them.

    Raises:
        ImageError: all images were skipped.
    """
    total = sum(map(len, sets.values()))
    rows: list[Row] = []
    skipped = [] if skipped is None else skipped
    done = 0
    for name, originals in sets.items():
        for original in originals:
            done += 1
            try:
                rows += [replace(row, set=name) for row in _measured(original, methods, scale, distances or {})]
            except ImageError as error:
                skipped.append(error)
            else:
                yield Step(done, total)
    if skipped and not rows:
        raise skipped[-1]
    yield Step(total, total, message=f"Skipped: {' '.join(map(str, skipped))}" if skipped else None)
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
        far = {key: float(distance(_rounded(large), high)) for key, distance in distances.items()}
        values = [measure(large, high, border=scale) for measure in (metrics.psnr, metrics.ssim)]
        rows.append(Row("", original.name, scale, method, values[0], values[1], seconds, far))
    return rows


def pair(original: Original, scale: int) -> tuple[Tensor, Tensor]:
    """An image cropped to multiples of the scale, and its reduction: both (1, 1 or 3, h, w) in [0, 1].

    Raises:
        ImageError: it cannot be read, or it is too small for the window of SSIM.
    """
    pixels = modcrop(original.read(), scale)
    if min(pixels.shape[-2:]) < 11 + 2 * scale:
        raise ImageError(f"{original.name} is too small to be measured at x{scale}: remove it.")
    levels = (pixels * 255 + 0.5).floor().to(torch.uint8)
    return levels.float() / 255, imresize(levels, 1 / scale).float() / 255


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The means over the images of each data set: one dictionary for each data set and method.

    The PSNR of a result that equals its original is infinite. It is left out of the mean where others are finite.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.set, row.method), []).append(row)
    table = []
    for (name, method), group in groups.items():
        line: dict[str, Any] = {"set": name, "images": len(group), "method": method}
        line["psnr"] = mean([row.psnr for row in group if not math.isinf(row.psnr)] or [math.inf])
        line |= {key: mean(getattr(row, key) for row in group) for key in ("ssim", "seconds")}
        for key in group[0].distances:
            line[key] = mean(row.distances[key] for row in group)
        table.append(line)
    return table


def _rounded(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255 + 0.5).floor() / 255
