"""Figures 8 and 9: super-resolution with pixel loss and with feature loss: measurements, and crops side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from perceptual.checkpoints import read_card, shipped
from perceptual.config import EvaluateConfig
from perceptual.errors import ConfigError, ImageError
from perceptual.events import Step
from perceptual.measure.metrics import psnr, ssim
from perceptual.measure.super_resolution import (
    METHODS,
    Method,
    Original,
    Row,
    Sets,
    distances_at_hand,
    evaluate,
    means,
    own_methods,
    pair,
    read_sets,
    shipped_methods,
)
from perceptual.reproduce.lab import Lab, samples
from perceptual.reproduce.report import Report, new_figure, sheet

IGNORED = ("styles", "paintings", "sizes", "images", "iterations", "full")
CROP = 80  # side of a crop in the figure, in pixels of the high-resolution image
SHOWN = 4  # number of images in the figure

# PSNR / SSIM of the paper's Figures 8 (x4) and 9 (x8) by data set and method. Its SRCNN is the model released by Dong
# et al. The paper prints 0.7301, 0.682 and 63.17 instead of 0.7031, 0.6682 and 0.6317; its other numbers show that
# these are misprints.
PAPER: dict[int, dict[str, dict[str, tuple[float, float]]]] = {
    4: {
        "Set5": {
            "bicubic": (28.43, 0.8114),
            "pixel": (28.40, 0.8205),
            "srcnn": (30.48, 0.8628),
            "feature": (27.09, 0.7680),
        },
        "Set14": {
            "bicubic": (25.99, 0.7031),
            "pixel": (25.75, 0.6994),
            "srcnn": (27.49, 0.7503),
            "feature": (24.99, 0.6731),
        },
        "BSD100": {
            "bicubic": (25.96, 0.6682),
            "pixel": (25.91, 0.6680),
            "srcnn": (26.90, 0.7101),
            "feature": (24.95, 0.6317),
        },
    },
    8: {
        "Set5": {"bicubic": (23.80, 0.6455), "pixel": (24.77, 0.6864), "feature": (23.26, 0.7058)},
        "Set14": {"bicubic": (22.37, 0.5518), "pixel": (23.02, 0.5787), "feature": (21.64, 0.5837)},
        "BSD100": {"bicubic": (22.11, 0.5322), "pixel": (22.54, 0.5526), "feature": (21.35, 0.5474)},
    },
}
DIFFERENCES = (
    "Images are reduced by bicubic interpolation without blur, here and in the paper's table. The paper's networks "
    "were trained on blurred images, ours were not.",
    "The networks are ours: six or eleven residual blocks at the small size, no batch normalisation, pixel shuffle; "
    "the output is added to the bicubic enlargement. Our pixel loss is the absolute error, at x8 also the squared "
    "error in the last steps. Our feature loss is LPIPS of VGG-16, Gram matrices of patches, and half the absolute "
    "error.",
    "The paper's SRCNN is the model released by its authors, trained on ImageNet; ours was trained by this project.",
    "No histogram matching: `benchmarks/upscale_artefacts.py` measures its effect.",
    "The paper prints 0.7301 and 0.682 for bicubic interpolation on Set14 and BSD100, and 63.17 for its feature loss "
    "on BSD100. These seem to be misprints of 0.7031, 0.6682 and 0.6317.",
)
FOUND = {
    4: "Feature loss gives sharper edges and finer detail than pixel loss, at a lower PSNR and SSIM, and leaves a "
    "slight cross-hatch pattern that is visible when enlarged.",
    8: "As at x4, feature loss gives sharper edges and finer detail; its SSIM is higher on Set5 and Set14.",
}


def read(data: Path | None, scale: int) -> Sets:
    """The data sets of a folder, or scikit-image's sample photos if `data` is None.

    Raises:
        DataError: the folder has no images. ConfigError: scikit-image is not installed.
    """
    if data:
        return read_sets(data, scale)
    return {"samples": [Original(name, partial(_same, pixels)) for name, pixels in samples()]}


def run(lab: Lab, scale: int, *, choose: Callable[[Sets], Sets] = lambda sets: sets) -> Generator[Step, None, Report]:
    """Figure 8 or 9 as an experiment. A generator of Steps that returns the Report.

    choose: selects the images to measure from the data sets.

    Raises:
        ConfigError: --network has another scale.
    """
    config = lab.config
    networks = (Path(config.network),) if config.network else ()
    for other in own_methods(networks, device=config.device):
        if other != scale:
            raise ConfigError(f"{config.network} enlarges {other} times: give a network for x{scale} to --network.")
    settings = EvaluateConfig(networks=networks, device=config.device)
    return (yield from measure(choose(read(config.photos, scale)), scale, settings, lab.paths))


def report_name(scale: int) -> str:
    """The name of the report for a scale: that of the paper's figure if there is one."""
    return {4: "figure8", 8: "figure9"}.get(scale, f"super-resolution-x{scale}")


def measure(sets: Sets, scale: int, config: EvaluateConfig, paths: Mapping[str, Path]) -> Generator[Step, None, Report]:
    """Measure all networks of a scale on the data sets. A generator of Steps that returns the Report.

    Raises:
        ConfigError, WeightsError, CheckpointError, ImageError: a requested network or file is missing or damaged.
    """
    new_figure(1, 1)  # raises an error before the work if matplotlib is missing
    methods = shipped_methods(scale, device=config.device)
    methods |= own_methods(config.networks, device=config.device).get(scale, {})
    distances = distances_at_hand(config.distances, paths=paths, device=config.device)
    skipped: list[ImageError] = []
    rows = yield from evaluate(sets, methods, scale, distances=distances, skipped=skipped)
    measured = {(row.set, row.image) for row in rows}
    turns = itertools.zip_longest(
        *([each for each in group if (name, each.name) in measured] for name, group in sets.items())
    )
    shown = [original for turn in turns for original in turn if original is not None][:SHOWN]
    return Report(
        report_name(scale),
        f"Super-resolution x{scale}" + {4: " (Figure 8)", 8: " (Figure 9)"}.get(scale, ""),
        sheet([_crops(original, scale, methods) for original in shown], inches=1.6),
        [_flat(row) for row in rows],
        [_with_papers(line, scale) for line in means(rows)],
        FOUND.get(scale, "The paper measures x4 and x8 only."),
        f"PSNR and SSIM on Y without a border of {scale} pixels. Perceptual distances compare normalised features and "
        f"are 0 for equal images. The crops are {CROP} px wide and show the place with the most detail; their PSNR / "
        "SSIM is that of the whole image.",
        [*DIFFERENCES, *_exact(rows), *_cards()],
        skipped,
    )


def _exact(rows: Sequence[Row]) -> list[str]:
    """A sentence about results that equal their originals, if there are any."""
    names = sorted({f"{row.image} ({METHODS.get(row.method, row.method)})" for row in rows if math.isinf(row.psnr)})
    if not names:
        return []
    return [f"Left out of the means of PSNR, because the result equals the original: {', '.join(names)}."]


def _cards() -> list[str]:
    """A sentence about each shipped network."""
    found = {name: read_card(path) for name, path in shipped.networks("upscale").items()}
    return [
        f"{name}: {card.network.architecture}, {card.steps} steps of {card.settings['train']['batch']} crops of "
        f"{card.settings['train']['size']} px by {card.settings['loss']}, {card.data}."
        for name, card in found.items()
    ]


def _same(pixels: Tensor) -> Tensor:
    return pixels


def _crops(original: Original, scale: int, methods: Mapping[str, Method]) -> list[tuple[str, Tensor | str]]:
    """A row of the figure: the crop with the most detail, of the original and of the result of each method."""
    high, low = pair(original, scale)
    top, left = busiest(high, CROP)

    def cut(image: Tensor) -> Tensor:
        return image.expand(-1, 3, -1, -1)[..., top : top + CROP, left : left + CROP]

    row: list[tuple[str, Tensor | str]] = [(f"{original.name}, x{scale}", cut(high))]
    for name, enlarge in methods.items():
        large = enlarge(low.expand(-1, 3, -1, -1))
        values = f"{psnr(large, high, border=scale):.2f} / {ssim(large, high, border=scale):.4f}"
        row.append((f"{METHODS.get(name, name)}\n{values}", cut(large)))
    return row


def busiest(image: Tensor, side: int) -> tuple[int, int]:
    """(top, left) of the square with the most detail in an image (1, C, H, W), on a grid of a quarter of `side`."""
    grey, step = image.mean(1, keepdim=True), max(1, side // 4)
    down, across = (grey - grey.roll(1, -2)).abs(), (grey - grey.roll(1, -1)).abs()
    sums = F.avg_pool2d(down + across, (min(side, grey.shape[-2]), min(side, grey.shape[-1])), step)
    row, column = divmod(int(sums.argmax()), sums.shape[-1])
    return row * step, column * step


def _with_papers(line: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """A row of the table, with the paper's numbers."""
    papers = PAPER.get(scale, {}).get(line["set"], {}).get(line["method"])
    shown = {"set": line["set"], "method": METHODS.get(line["method"], line["method"]), "images": line["images"]}
    shown |= {"PSNR": f"{line['psnr']:.2f}", "SSIM": f"{line['ssim']:.4f}"}
    shown |= {"the paper's": f"{papers[0]:.2f} / {papers[1]:.4f}" if papers else "-"}
    known = ("set", "method", "images", "psnr", "ssim", "seconds")
    shown |= {f"distance in {key}": f"{value:.4f}" for key, value in line.items() if key not in known}
    return {**shown, "seconds an image": line["seconds"]}


def by_picture(
    rows: Sequence[Mapping[str, Any]], papers: Mapping[str, Mapping[str, tuple[float, float]]]
) -> list[dict[str, Any]]:
    """A table with a row for each image and method. papers: the paper's PSNR and SSIM by data set and method."""
    table = []
    for row in rows:
        theirs = papers.get(row["set"], {}).get(row["method"])
        table.append(
            {
                "set": row["set"],
                "picture": row["image"],
                "method": METHODS.get(row["method"], row["method"]),
                "PSNR": f"{row['psnr']:.2f}",
                "SSIM": f"{row['ssim']:.4f}",
                "the paper's": f"{theirs[0]:.2f} / {theirs[1]:.4f}" if theirs else "-",
            }
        )
    return table


def _flat(row: Row) -> dict[str, Any]:
    values = asdict(row)
    distances = values.pop("distances")
    return {**values, **distances}
