"""perceptual stylize and perceptual upscale: files in, files out."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from perceptual.cli.terminal import FAILED, say, tell
from perceptual.config import StylizeConfig, UpscaleConfig, WebcamConfig
from perceptual.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.apply import Conversion, Stylizer
    from perceptual.apply.upscaler import Upscaler

_Inputs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
_Out = Annotated[Path, tyro.conf.arg(aliases=("-o",))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stylize(StylizeConfig):
    """Paint photographs in a style.

    INPUT is any number of files, folders (searched through) and globs. The output has exactly the input's size, and
    keeps its colour profile, EXIF and transparency. Example: perceptual stylize photos/ --style starry_night -o out/
    """

    inputs: _Inputs
    """Image files, folders and globs."""
    out: _Out
    """The file to write, for one input file; else a folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Upscale(UpscaleConfig):
    """Enlarge pictures.

    INPUT is any number of files, folders (searched through) and globs. The output keeps the input's colour profile,
    EXIF and transparency. Example: perceptual upscale photos/ --scale 4 -o large/
    """

    inputs: _Inputs
    """Image files, folders and globs."""
    out: _Out
    """The file to write, for one input file; else a folder."""


def stylize(arguments: Sequence[str]) -> int:
    """perceptual stylize: files in, paintings out; exit code 1 if any failed."""
    config = tyro.cli(_Stylize, args=arguments, prog="perceptual stylize")
    from perceptual.apply import Conversion, plan_outputs
    from perceptual.images import scaled_size

    if not config.inputs:
        raise ConfigError("Give at least one image, folder or glob to stylize.")
    pairs = plan_outputs(config.inputs, config.out)
    paint, longer = load_stylizer(config), config.size

    def size(height: int, width: int) -> tuple[int, int]:
        return scaled_size(height, width, longer / max(height, width)) if longer else (height, width)

    return _convert(pairs, Conversion(paint, size), config.skip_existing)


def upscale(arguments: Sequence[str]) -> int:
    """perceptual upscale: files in, larger ones out; exit code 1 if any failed."""
    config = tyro.cli(_Upscale, args=arguments, prog="perceptual upscale")
    from perceptual.apply import Conversion, plan_outputs

    if not config.inputs:
        raise ConfigError("Give at least one image, folder or glob to enlarge.")
    pairs = plan_outputs(config.inputs, config.out)
    upscaler = open_upscaler(config)
    conversion = Conversion(enlarging(upscaler, config), upscaler.size, upscaler.upscale_alpha)
    return _convert(pairs, conversion, config.skip_existing)


def open_stylizer(config: StylizeConfig | WebcamConfig, *, video: bool = False) -> Stylizer:
    """The network of the settings, with its precision; video: one that is steady from frame to frame, where there is
    one of that style. A wrong name is said here, and not for every picture.
    """
    import torch

    from perceptual.apply import Stylizer
    from perceptual.fast import prepare_kernels

    stylizer = Stylizer.load(config.style, device=config.device, video=video)
    if stylizer.device.type == "cpu":
        compile_here = os.environ.get("PERCEPTUAL_KERNELS") == "compile"
        if not prepare_kernels(compile_here=compile_here) and compile_here:
            say("PERCEPTUAL_KERNELS=compile: compiling failed, or gcc is missing; painting goes on without kernels.")
    stylizer.precision = config.precision
    stylizer.stylize(torch.zeros(1, 3, 1, 1), style=config.name)
    return stylizer


def load_stylizer(config: StylizeConfig, *, video: bool = False) -> Callable[[Tensor], Tensor]:
    """What paints (1, 3, H, W) as the settings say."""
    stylizer = open_stylizer(config, video=video)
    how = {key: getattr(config, key) for key in ("strength", "keep_colors", "style_scale", "size", "noise")}
    return partial(stylizer.stylize, style=config.name, **how)


def open_upscaler(config: UpscaleConfig) -> Upscaler:
    """The network of the settings, at their scale."""
    from perceptual.apply.upscaler import Upscaler

    if not config.network:
        return Upscaler.at_scale(config.scale or 4, config.loss, device=config.device)
    upscaler = Upscaler.load(config.network, device=config.device)
    upscaler.scale = config.scale or upscaler.scale
    return upscaler


def enlarging(upscaler: Upscaler, config: UpscaleConfig) -> Callable[[Tensor], Tensor]:
    """What enlarges (1, 3, H, W) as the settings say."""
    import torch

    how = partial(upscaler.upscale, tile=config.tile, match_histogram=config.match_histogram)
    how(torch.zeros(1, 3, 1, 1))  # what is missing is said once, not for every picture
    return how


def _convert(pairs: Sequence[tuple[Path, Path]], conversion: Conversion, skip_existing: bool) -> int:
    """Convert each file, telling of each; the exit code."""
    from perceptual.apply import convert_files

    failures, written, skipped = [], 0, 0
    began = time.monotonic()
    outcomes = convert_files(pairs, conversion, skip_existing=skip_existing)
    for index, outcome in enumerate(outcomes, start=1):
        if outcome.error:
            failures.append(outcome)
            say(f"[{index}/{len(pairs)}] failed: {outcome.error}")
        else:
            written, skipped = written + (not outcome.skipped), skipped + outcome.skipped
            if (count := outcome.frames) > 1:
                say(f"{outcome.source} holds {count} pictures: only the first is used; `perceptual video` does all.")
            tell(f"{outcome.target}" + (" (exists, skipped)" if outcome.skipped else ""))
    say(f"{written} written, {skipped} skipped, {len(failures)} failed in {time.monotonic() - began:.1f} s.")
    if len(pairs) > 1:
        for outcome in failures:
            say(f"  failed: {outcome.error}")
    return FAILED if failures else 0
