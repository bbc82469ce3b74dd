"""The commands that optimise the pixels of one picture: `perceptual optimize style`, `invert` and `texture`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from perceptual.cli.terminal import INTERRUPTED, say, stop_on_signal, with_bar
from perceptual.cli.weights import fetch_missing, weight_paths
from perceptual.config import BASELINE_LOSS, INVERT_TV, LossConfig, OptimizeConfig, Weight
from perceptual.errors import ConfigError

if TYPE_CHECKING:
    from perceptual.images import Picture
    from perceptual.optimize import Optimization


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The picture to write. Beside it lie a trace with every term of each iteration (.jsonl) and the previews."""
    weights: tuple[str, ...] = ()
    """Weight files of loss networks as NAME=FILE; others are taken from the cache or downloaded."""
    overwrite: bool = False
    """Write although --out exists."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Style(OptimizeConfig, _Files):
    """Paint one photograph in the style of one painting by optimising its pixels: the paper's baseline, equation 5.

    The method of Gatys et al. needs no training and any painting will do, but takes minutes a picture. Ctrl-C keeps the
    best so far. Example: perceptual optimize style photo.jpg painting.jpg -o out.png --size 256
    """

    content: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONTENT")]
    """The photograph."""
    style: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STYLE")]
    """The painting."""
    loss: tyro.conf.OmitArgPrefixes[LossConfig] = BASELINE_LOSS


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Invert(OptimizeConfig, _Files):
    """Rebuild a picture from its features at one layer of a loss network alone (the paper's Figure 3).

    Example: perceptual optimize invert photo.jpg --layer relu3_3 -o out.png --size 256
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """The picture whose features to rebuild."""
    layer: str = "vgg16:relu3_3"
    """The layer, as NETWORK:LAYER; `perceptual weights NETWORK` lists them."""
    tv_weight: Weight = INVERT_TV
    """Weight of total variation, 0 to 1e+12, relative to that of the picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Texture(OptimizeConfig, _Files):
    """Make a picture with the style of another, and nothing of its content (the paper's Figure 4).

    Example: perceptual optimize texture painting.jpg -o out.png --layers relu1_2 relu2_2 --size 256
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """The picture whose style to rebuild."""
    layers: tuple[str, ...] = LossConfig.style_layers
    """Layers of the style reconstruction loss, as NETWORK:LAYER; one alone shows what it holds."""
    tv_weight: Weight = 0.0
    """Weight of total variation, 0 to 1e+12, relative to that of white noise."""


def optimize_style(arguments: Sequence[str]) -> int:
    """perceptual optimize style CONTENT STYLE: a painting of one photograph."""
    config = tyro.cli(_Style, args=arguments, prog="perceptual optimize style")
    from perceptual import images, optimize

    photograph, painting = images.read(config.content), images.read(config.style).pixels
    layers = (*config.loss.content_layers, *config.loss.style_layers)
    paths = _check(config, layers, (config.content, config.style))
    run = optimize.optimize_style(photograph.pixels, painting, loss=config.loss, config=config, paths=paths)
    return _run(run, config, photograph)


def invert(arguments: Sequence[str]) -> int:
    """perceptual optimize invert IMAGE: a picture with the same features."""
    config = tyro.cli(_Invert, args=arguments, prog="perceptual optimize invert")
    from perceptual import images, optimize

    picture = images.read(config.image)
    paths = _check(config, (config.layer,), (config.image,))
    run = optimize.invert(picture.pixels, config.layer, tv_weight=config.tv_weight, config=config, paths=paths)
    return _run(run, config, picture)


def texture(arguments: Sequence[str]) -> int:
    """perceptual optimize texture IMAGE: a picture with the same style."""
    config = tyro.cli(_Texture, args=arguments, prog="perceptual optimize texture")
    from perceptual import images, optimize

    picture = images.read(config.image)
    paths = _check(config, config.layers, (config.image,))
    run = optimize.texture(picture.pixels, config.layers, tv_weight=config.tv_weight, config=config, paths=paths)
    return _run(run, config, dataclasses.replace(picture, alpha=None))  # a texture has no outline


def _side_paths(out: Path) -> tuple[Path, Path]:
    """The trace and the folder of previews beside a picture."""
    return out.with_name(f"{out.name}.jsonl"), out.with_name(f"{out.name}.previews")


def _check(config: _Files, layers: Sequence[str], inputs: Sequence[Path]) -> dict[str, Path]:
    """Say before the work what would stop it at its end, and get the loss networks; returns their files."""
    from perceptual import images
    from perceptual.files import check_folder, check_new, check_no_input

    out = config.out
    images.check_ending(out)
    check_new(out, _side_paths(out), overwrite=config.overwrite)
    check_no_input(out, inputs)
    if not layers:
        raise ConfigError("Name at least one layer.")
    check_folder(out.parent)
    paths = weight_paths(config.weights)
    fetch_missing(layers, paths)
    return paths


def _run(run: Optimization, config: _Files, picture: Picture) -> int:
    """Optimise with a bar, previews and a trace; Ctrl-C ends it between two iterations and keeps the best so far."""
    from perceptual import images
    from perceptual.errors import PerceptualError
    from perceptual.files import append_line, one_run, remove_previews

    trace, previews = _side_paths(config.out)
    written, failure = 0, None
    with one_run(config.out), stop_on_signal() as stopping, closing(run.run()) as steps:
        try:
            for step in with_bar(steps, "optimising"):
                if not written:  # what is wrong with the input has been said by now
                    trace.unlink(missing_ok=True)
                    remove_previews(previews)
                for line in run.trace[written:]:
                    append_line(trace, json.dumps(line))
                written = len(run.trace)
                if step.preview is not None:
                    images.write(previews / f"{step.index:06d}.png", step.preview)
                if stopping:
                    break
        except PerceptualError as error:  # what has been reached is still worth keeping
            failure = error
    if run.trace:
        images.write(config.out, dataclasses.replace(picture, pixels=run.best))
        least = min(line["total"] for line in run.trace if line["scale"] == run.trace[-1]["scale"])
        say(f"Wrote {config.out} after {run.trace[-1]['iteration']} iterations; objective {least:.4g}.")
    if failure:
        raise failure
    return INTERRUPTED if stopping else 0
