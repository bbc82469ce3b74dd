"""The commands that optimise the pixels of one image: `perceptual optimize style`, `invert` and `texture`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

import tyro

from perceptual.cli import results
from perceptual.cli.help import parse, words
from perceptual.cli.terminal import INTERRUPTED, say, stop_on_signal, with_bar
from perceptual.cli.usage import plain_flag
from perceptual.cli.weights import fetch_missing
from perceptual.config import BASELINE_LOSS, INVERT_TV, LossConfig, OptimizeConfig, Weight, weight_paths
from perceptual.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from perceptual.images import Picture
    from perceptual.optimize import Optimization


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The image to write. A log with every term of each iteration (.jsonl) and the previews are written next to it."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks, as NAME=FILE. Others come from the cache or are downloaded."""
    overwrite: bool = False
    """Overwrite --out if it exists."""


_F = TypeVar("_F", bound=_Files)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Style(OptimizeConfig, _Files):
    """Paint one photo in the style of one painting by optimising its pixels: the paper's baseline, equation 5.

    The method of Gatys et al. works with any painting and needs no training, but takes minutes per photo. Ctrl-C stops
    and keeps the best result so far.
    Example: perceptual optimize style photo.jpg painting.jpg -o out.png --size 256
    """

    everyday: ClassVar[tuple[str, ...]] = (
        *("content", "style", "out", "size", "iterations", "style_weight", "init", "scales", "style_size"),
        *("weights", "overwrite"),
    )

    content: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONTENT")]
    """The photo."""
    style: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STYLE")]
    """The painting."""
    loss: tyro.conf.OmitArgPrefixes[LossConfig] = BASELINE_LOSS


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Invert(OptimizeConfig, _Files):
    """Reconstruct an image from its features at one layer of a loss network (the paper's Figure 3).

    Example: perceptual optimize invert photo.jpg --layer relu3_3 -o out.png --size 256
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """The image to reconstruct from its features."""
    layer: str = "vgg16:relu3_3"
    """The layer, as NETWORK:LAYER; `perceptual weights NETWORK` lists the layers."""
    tv_weight: Weight = INVERT_TV
    """Weight of total variation, 0 to 1e+12, relative to the total variation of the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Texture(OptimizeConfig, _Files):
    """Make an image with the style of another image but without its content (the paper's Figure 4).

    Example: perceptual optimize texture painting.jpg -o out.png --layers relu1_2 relu2_2 --size 256
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """The image with the style."""
    layers: tuple[str, ...] = LossConfig.style_layers
    """Layers of the style reconstruction loss, as NETWORK:LAYER. A single layer shows what this layer captures."""
    tv_weight: Weight = 0.0
    """Weight of total variation, 0 to 1e+12, relative to the total variation of white noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init == "content":
            raise ConfigError("A texture has no content image to start from: use --init noise.")
        if not self.layers:
            raise ConfigError("Name at least one layer.")


def optimize_style(arguments: Sequence[str]) -> int:
    """perceptual optimize style CONTENT STYLE: paint one photo. Returns the exit code."""
    config = _parsed(_Style, arguments, "optimize style")
    from perceptual import images, optimize
    from perceptual.losses import layers_of, objective_of
    from perceptual.losses.language import check_alone

    if config.loss.loss:
        typed = set(map(plain_flag, arguments))
        with words():
            check_alone(lambda setting: f"--{setting.replace('_', '-')}" in typed)
    photograph, painting = images.read(config.content), images.read(config.style).pixels
    paths = _check(config, layers_of(objective_of(config.loss)), (config.content, config.style))
    run = optimize.optimize_style(photograph.pixels, painting, loss=config.loss, config=config, paths=paths)
    return _run(run, config, photograph)


def invert(arguments: Sequence[str]) -> int:
    """perceptual optimize invert IMAGE: reconstruct an image from its features. Returns the exit code."""
    config = _parsed(_Invert, arguments, "optimize invert")
    from perceptual import images, optimize

    picture = images.read(config.image)
    paths = _check(config, (config.layer,), (config.image,))
    run = optimize.invert(picture.pixels, config.layer, tv_weight=config.tv_weight, config=config, paths=paths)
    return _run(run, config, picture)


def texture(arguments: Sequence[str]) -> int:
    """perceptual optimize texture IMAGE: make an image with the same style. Returns the exit code."""
    config = _parsed(_Texture, arguments, "optimize texture")
    from perceptual import images, optimize

    picture = images.read(config.image)
    paths = _check(config, config.layers, (config.image,))
    run = optimize.texture(picture.pixels, config.layers, tv_weight=config.tv_weight, config=config, paths=paths)
    return _run(run, config, dataclasses.replace(picture, alpha=None))  # a texture has no outline


def _parsed(kind: type[_F], arguments: Sequence[str], command: str) -> _F:
    """As `parse`, and the ending of --out is checked."""
    config = parse(kind, arguments, command)
    from perceptual import images

    with words(OutputError):
        images.check_ending(config.out)
    return config


def _side_paths(out: Path) -> tuple[Path, Path]:
    """The log file and the folder of previews that belong to an output image."""
    return out.with_name(f"{out.name}.jsonl"), out.with_name(f"{out.name}.previews")


def _check(config: _Files, layers: Sequence[str], inputs: Sequence[Path]) -> dict[str, Path]:
    """Check the output before the work starts, and download missing loss networks; returns their weight files."""
    from perceptual.files import check_folder, check_new, check_no_input

    out = config.out
    check_new(out, _side_paths(out), overwrite=config.overwrite)
    check_no_input(out, inputs)
    check_folder(out.parent)
    paths = weight_paths(config.weights)
    fetch_missing(layers, paths)
    return paths


def _run(run: Optimization, config: _Files, picture: Picture) -> int:
    """Optimise with a progress bar, previews and a log. Ctrl-C stops after an iteration and keeps the best result."""
    from perceptual import images
    from perceptual.errors import PerceptualError
    from perceptual.files import append_line, one_run, remove_previews

    trace, previews = _side_paths(config.out)
    written, failure = 0, None
    with one_run(config.out), stop_on_signal() as stopping, closing(run.run()) as steps:
        try:
            for step in with_bar(steps, "optimising"):
                if not written:  # the input is valid, so the files of an older run can be deleted
                    trace.unlink(missing_ok=True)
                    remove_previews(previews)
                for line in run.trace[written:]:
                    append_line(trace, json.dumps(line))
                written = len(run.trace)
                if step.preview is not None:
                    images.write(previews / f"{step.index:06d}.png", step.preview)
                if stopping:
                    break
        except PerceptualError as error:  # the best result so far is written before the error is raised
            failure = error
    if run.trace:
        images.write(config.out, dataclasses.replace(picture, pixels=run.best))
        _report(run, config.out, trace, stopped=bool(stopping))
    if failure:
        raise failure
    return INTERRUPTED if stopping else 0


def _report(run: Optimization, out: Path, log: Path, *, stopped: bool) -> None:
    """Say what was written, for people and for --json."""
    last = run.trace[-1]
    least = min(line["total"] for line in run.trace if line["scale"] == last["scale"])
    results.put(output=out, width=run.size[1], height=run.size[0], log=log)
    results.put(iterations=last["iteration"], objective=least, last=last, stopped_early=stopped)
    say(f"Wrote {out} after {last['iteration']} iterations; objective {least:.4g}.")
