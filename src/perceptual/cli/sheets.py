"""All styles of the gallery on one sheet: `perceptual stylize --style all` and `perceptual suggest`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from perceptual.cli import results
from perceptual.cli.files import STREAM, Files, is_stdout, run_files
from perceptual.cli.help import WrongCommandLine, parse
from perceptual.cli.terminal import complain, show, with_bar
from perceptual.config import PaintOptions, Range, weight_paths

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.apply import Stylizer, Work
    from perceptual.events import Step

GALLERY = "gallery"
COLUMNS, SIDE = 4, 512

Labels = Callable[["Tensor", Mapping[str, "Tensor"]], Sequence[tuple[str, "Tensor"]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Suggest(Files):
    """Which style suits a photo: all styles on one sheet, those first that keep most of the photo's content.

    Every style is painted at the same size and at full strength. The order is that of the feature reconstruction loss
    (paper, equation 2) in the smallest loss network with weights on this computer; without weights, that of SSIM.
    Example: perceptual suggest photo.jpg
    perceptual suggest photo.jpg -o sheet.png
    """

    everyday: ClassVar[tuple[str, ...]] = ("inputs", "out", "size", "overwrite")
    size: Annotated[int, Range(16, 4096)] | None = None
    """Longer side of each painting in the sheet, 16 to 4,096 pixels; default: that of the photo, and at most 512."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache; nothing is downloaded."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""


def suggest(arguments: Sequence[str]) -> int:
    """perceptual suggest: all styles as one sheet, ordered by how well the content survives. Returns the exit code."""
    config = parse(_Suggest, arguments, "suggest")
    if len(config.inputs) != 1 or (config.inputs[0] != STREAM and os.path.isdir(config.inputs[0])):
        raise WrongCommandLine("perceptual suggest looks at one photo: give one file.")
    from perceptual.apply import Stylizer
    from perceptual.measure.content import content_distances

    paths = weight_paths(config.weights)

    def ranked(photograph: Tensor, paintings: Mapping[str, Tensor]) -> Sequence[tuple[str, Tensor]]:
        found, measure = content_distances(photograph, paintings, paths=paths)
        lines = [f"{k:2}. {name:18} {value:.3f}" for k, (name, value) in enumerate(found.items(), start=1)]
        results.put(measure=measure, distances=dict(found))
        text = "\n".join([*lines, f"({measure}; smaller keeps more of the photo)"])
        complain(text, lines=True) if is_stdout(config) else show(text, lines=True)
        return [(f"{k}. {name}  {found[name]:.2f}", paintings[name]) for k, name in enumerate(found, start=1)]

    options = PaintOptions(size=config.size)
    return on_sheets(lambda: Stylizer.load(GALLERY, device=config.device), config, options, ranked)


def in_order(photograph: Tensor, paintings: Mapping[str, Tensor]) -> Sequence[tuple[str, Tensor]]:
    """The paintings with their names."""
    return list(paintings.items())


def on_sheets(load: Callable[[], Stylizer], files: Files, options: PaintOptions, labels: Labels = in_order) -> int:
    """Paint each picture in every style of a network, and write one sheet for each; returns the exit code.

    options.size: the longer side of each painting; None: that of the picture, and 512 px at most. labels: the
        paintings in their order, with a label each; it gets the photo and the paintings by style.
    """

    def begin() -> Work:
        from perceptual import images
        from perceptual.apply import Work

        stylizer = load()
        styles = stylizer.styles

        def cell(height: int, width: int) -> tuple[int, int]:
            longer = max(height, width)
            return images.scaled_size(height, width, (options.size or min(SIDE, longer)) / longer)

        def convert(pixels: Tensor) -> Tensor:
            photograph = images.resize(images.unit(pixels), size=cell(pixels.shape[-2], pixels.shape[-1]))
            made: dict[str, Tensor] = {}
            for _ in with_bar(_paint(stylizer, photograph, replace(options, size=None), made), "painting", brief=True):
                pass
            cells = [("original", photograph), *labels(photograph, made)]
            return images.like(images.labelled_sheet(cells, COLUMNS, photograph.shape[-1]), pixels)

        return Work(
            convert,
            lambda height, width: images.sheet_size(len(styles) + 1, COLUMNS, *cell(height, width)),
            on_white=True,
        )

    return run_files(files, begin, mark="_all")


def _paint(stylizer: Stylizer, photograph: Tensor, options: Any, made: dict[str, Tensor]) -> Iterator[Step]:
    """Fill `made` with a painting for each style, with a Step after each."""
    from perceptual.events import Step

    for index, style in enumerate(stylizer.styles, start=1):
        made[style] = stylizer.stylize(photograph, options, style=style)
        yield Step(index, len(stylizer.styles))
