"""perceptual evaluate: measure super-resolution by the paper's protocol, and compare style networks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from perceptual.cli import results
from perceptual.cli.help import WrongCommandLine, parse
from perceptual.cli.terminal import INTERRUPTED, say, show, stop_on_signal, tell, with_bar
from perceptual.cli.weights import fetch_missing
from perceptual.config import EvaluateConfig, Range, check, weight_paths
from perceptual.errors import ConfigError

if TYPE_CHECKING:
    from perceptual.events import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluate(EvaluateConfig):
    """Measure super-resolution by the usual protocol (paper, section 4.2): the tables and crops of Figures 8 and 9.

    Writes one page for each scale: PSNR, SSIM, perceptual distances and seconds, next to the paper's numbers; crops
    side by side; and the numbers of every image. Example: perceptual evaluate sr --data sr/ --out figures/
    """

    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The folder to write to."""
    overwrite: bool = False
    """Replace files of the same names in --out that this command did not write."""


def evaluate_sr(arguments: Sequence[str]) -> int:
    """perceptual evaluate sr: measure on a folder of images and write pages with tables and crops.

    Returns the exit code.
    """
    config = parse(_Evaluate, arguments, "evaluate sr")
    if os.path.isfile(config.out):
        raise ConfigError(f"{config.out} is a file: give a folder to write to.")
    from perceptual.files import check_folder
    from perceptual.measure.super_resolution import own_methods
    from perceptual.reproduce import report, super_resolution

    settings = EvaluateConfig(**{f.name: getattr(config, f.name) for f in dataclasses.fields(EvaluateConfig)})
    paths = weight_paths(config.weights)
    for scale, methods in own_methods(config.networks, device=config.device).items():
        if scale not in config.scales:
            raise ConfigError(f"{next(iter(methods))} enlarges {scale} times: add {scale} to --scales.")
    written: list[Path] = []

    def steps(scale: int) -> Generator[Step, None, None]:
        sets = super_resolution.read(config.data, scale)
        found = yield from super_resolution.measure(sets, scale, settings, paths)
        written.extend(report.write(found, config.out, settings))
        skipped = list(map(str, found.skipped))
        results.add("scales", {"scale": scale, "table": found.table, "images": found.rows, "skipped": skipped})
        say(report.table(found.table), lines=True)

    for scale in config.scales:
        report.check_out(super_resolution.report_name(scale), config.out, overwrite=config.overwrite)
    check_folder(config.out)
    for scale in config.scales:
        with closing(steps(scale)) as work, stop_on_signal() as stopping:
            for _ in with_bar(work, f"x{scale}"):
                if stopping:
                    say("Stopped early; nothing was written for this scale.")
                    return INTERRUPTED
    results.put(outputs=written)
    for path in written:
        tell(path)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _EvaluateStyle:
    """Compare style networks on photos: one table of objective, style, content and grid. Smaller is better.

    Each row is the mean over the photos, which are squashed to squares. style: 0 is the style of the painting, 1 is as
    far from it as the photos. content: 0 is the photo, 1 is as far as another photo. objective: the weighted sum of
    these and of total variation (paper, equation 5). grid: 1 is no pattern of 2 or 4 px.
    Example: perceptual evaluate style photos/ --painting wave.jpg --styles wave their_wave.pth
    """

    everyday: ClassVar[tuple[str, ...]] = ("inputs", "painting", "styles", "size", "weights")
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Photos: two or more files, or folders and globs."""
    painting: Path
    """The painting that the styles are compared with."""
    styles: tuple[str, ...] = ("starry_night",)
    """Shipped styles by name, trained networks, and networks of other programs (.pth, .model, .t7, .ckpt)."""
    size: Annotated[int, Range(128, 4096)] = 256
    """Side of the square photos, 128 to 4,096 pixels."""
    painting_size: Annotated[int, Range(32, 16_384)] = 512
    """Longer side of the painting when its style is measured, 32 to 16,384 pixels, if it is larger. Networks are
    compared fairly only at the size that they were trained with."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache or are downloaded."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU. It paints; the CPU measures."""

    def __post_init__(self) -> None:
        check(self)


def evaluate_style(arguments: Sequence[str]) -> int:
    """perceptual evaluate style: measure the paintings of style networks and print a table. Returns the exit code."""
    config = parse(_EvaluateStyle, arguments, "evaluate style")
    if not config.inputs or not config.styles:
        raise WrongCommandLine("Give photos, and at least one style with --styles.")
    from perceptual import images
    from perceptual.apply import Stylizer
    from perceptual.losses import layers_of, objective_of
    from perceptual.measure import style
    from perceptual.reproduce import report

    paths = weight_paths(config.weights)
    pixels = images.read(config.painting).pixels
    painting = images.resize(pixels, longer_side=min(config.painting_size, max(pixels.shape[-2:])))
    photos, skipped = style.read_photos(config.inputs, config.size)
    painters = {name: Stylizer.load(name, device=config.device).stylize for name in config.styles}
    fetch_missing(layers_of(objective_of(style.OBJECTIVE)), paths)
    rows: list[dict[str, Any]] = []

    def steps() -> Generator[Step, None, None]:
        rows.extend((yield from style.evaluate_styles(painters, photos, painting, paths=paths)))

    with closing(steps()) as work, stop_on_signal() as stopping:
        for _ in with_bar(work, "measuring"):
            if stopping:
                return INTERRUPTED
    results.put(table=rows, skipped=list(map(str, skipped)))
    if skipped:
        say(f"Skipped: {' '.join(map(str, skipped))}")
    show(report.table(rows), lines=True)
    return 0
