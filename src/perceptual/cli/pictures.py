"""perceptual stylize and perceptual upscale: files in, files out, by any model."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

from perceptual.cli.cluster import placed
from perceptual.cli.files import Files, run_files
from perceptual.cli.help import WrongCommandLine, parse
from perceptual.cli.hints import Hints, pixels_of
from perceptual.cli.sheets import GALLERY, on_sheets
from perceptual.cli.terminal import say, with_bar
from perceptual.config import (
    EngineConfig,
    ModelOptions,
    PaintOptions,
    StylizeConfig,
    UpscaleConfig,
    UpscaleOptions,
    WebcamConfig,
)
from perceptual.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.apply import Model, Stylizer, Upscaler, Work


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Width(Files, EngineConfig):
    """The flag --width of commands that can set the size of their output."""

    width: str | None = None
    """Width of the output, in pixels such as 2000px, or of a print: 30cm, 300mm or 12in together with --dpi."""

    def check_width(self, other: str, value: object) -> None:
        """Refuse --width together with another flag for the size, or if it is no length."""
        if self.width is not None:
            if value is not None:
                raise ConfigError(f"--width and --{other} both set the size of the output: leave one of them out.")
            pixels_of(self.width, self.dpi)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stylize(_Width, StylizeConfig):
    """Paint photographs in a style.

    INPUT is any number of files, folders (searched through) and globs. The output has exactly the input's size, and
    keeps its colour profile, EXIF and transparency.
    Example: perceptual stylize photo.jpg --style wave
    perceptual stylize photo.jpg --style "starry_night:0.7,wave:0.3" --strength 0.8 -o painting.png
    perceptual stylize photos/ --style starry_night -o paintings/
    perceptual stylize photo.jpg --style all -o sheet.png
    perceptual stylize s3://bucket/photos -o s3://bucket/paintings --engine ray
    """

    everyday: ClassVar[tuple[str, ...]] = (
        *("inputs", "out", "style", "name", "strength", "keep_colors", "style_scale", "size", "width"),
        *("overwrite", "skip_existing"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_width("size", self.size)

    def options_for(self, height: int, width: int) -> PaintOptions:
        """The options for a picture of that size in pixels."""
        if self.width is None:
            return self.options
        longer = pixels_of(self.width, self.dpi) * max(height, width) / width
        if round(longer) > 100_000:
            raise ConfigError(f"A picture of {width} x {height} px would be {longer:,.0f} px high: give less --width.")
        return dataclasses.replace(self.options, size=max(1, round(longer)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Upscale(_Width, UpscaleConfig):
    """Enlarge pictures.

    INPUT is any number of files, folders (searched through) and globs. The output keeps the input's colour profile,
    EXIF and transparency.
    Example: perceptual upscale small.jpg
    perceptual upscale photos/ --scale 4 --loss feature -o large/
    perceptual upscale small.jpg --width 30cm --dpi 300 -o print.png
    """

    everyday: ClassVar[tuple[str, ...]] = (
        *("inputs", "out", "scale", "width", "loss", "network", "overwrite", "skip_existing"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_width("scale", self.scale)

    def options_for(self, height: int, width: int) -> UpscaleOptions:
        """The options for a picture of that size in pixels."""
        if self.width is None:
            return self.options
        return dataclasses.replace(self.options, scale=pixels_of(self.width, self.dpi) / width)

    def model_for(self, height: int, width: int) -> Model[Any] | None:
        """With --width, the shipped network for the scale that this means for the picture."""
        from perceptual.apply import Upscaler

        if self.width is None or self.network:
            return None
        scale = pixels_of(self.width, self.dpi) / width
        own = int(Upscaler.name_at(scale, self.loss).removeprefix("x").partition("_")[0])
        return _shipped(dataclasses.replace(self, inputs=(), out=None, width=None, scale=own))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Apply(Files, ModelOptions):
    """Apply any trained network to images, whatever its task, with its default options.

    INPUT is any number of files, folders (searched through) and globs. `stylize` and `upscale` have more options.
    Example: perceptual apply photos/ --network denoise.safetensors -o out/
    """

    everyday: ClassVar[tuple[str, ...]] = ("inputs", "out", "network")
    network: str
    """A trained network: a file, or a shipped one by name."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto: a CUDA GPU if there is one, else the CPU."""


def stylize(arguments: Sequence[str]) -> int:
    """perceptual stylize: files in, paintings out; exit code 1 if any failed."""
    config = placed(parse(_Stylize, arguments, "stylize"))
    if config.style == "all":
        if config.name is not None:
            raise WrongCommandLine("--style all paints every style: leave --name out.")
        if config.width is not None:
            raise WrongCommandLine(
                "--style all makes a sheet: give --size, the longer side of each painting, not --width."
            )
        return on_sheets(lambda: open_stylizer(dataclasses.replace(config, style=GALLERY)), config, config.options)
    mark = _mark(config.name or config.style)
    return apply_to_files(
        lambda: open_stylizer(config), config, config.options, config.options_for, title="painting", mark=mark
    )


def upscale(arguments: Sequence[str]) -> int:
    """perceptual upscale: files in, larger ones out; exit code 1 if any failed."""
    config = placed(parse(_Upscale, arguments, "upscale"))
    mark = _mark(str(config.network)) if config.network else f"_x{config.scale or 4:g}"
    if config.width is not None:
        mark = f"_{pixels_of(config.width, config.dpi)}px"
    return apply_to_files(
        lambda: open_upscaler(config), config, config.options, config.options_for, title="enlarging", mark=mark
    )


def apply(arguments: Sequence[str]) -> int:
    """perceptual apply: files in, files out, by any trained network; exit code 1 if any failed."""
    config = parse(_Apply, arguments, "apply")
    model, file = _model_for(config.network)
    options = model.options_type()
    if config.tile is not None:
        if "tile" not in {field.name for field in dataclasses.fields(options)}:
            raise ConfigError(f"A {model.__name__} takes no --tile: leave it out.")
        options = dataclasses.replace(options, tile=config.tile)
    mark = _mark(config.network)
    return apply_to_files(
        lambda: model.load(file, device=config.device), config, options, lambda *_: options, title="applying", mark=mark
    )


def _model_for(name: str) -> tuple[type[Model[Any]], str]:
    """The class that applies a trained network, a file or a shipped one, and the name to load it by."""
    from perceptual.checkpoints import find_network, guess, is_hub_name, read_card, shipped, written_as
    from perceptual.tasks import find_task

    known = {name: "upscale" for name in shipped.networks("upscale")}
    known |= dict.fromkeys((*shipped.networks("style"), *shipped.gallery()), "style")
    path = find_network(name, task="") if is_hub_name(name) else Path(name).expanduser()
    if path.is_file() and name not in known:
        name, task = str(path), read_card(path).task
    elif spelt := written_as(name, known):
        name, task = spelt, known[spelt]
    else:
        hint = guess(name, known)
        raise CheckpointError(f"There is no network {name!r}{hint}: give a trained file, or one of {', '.join(known)}.")
    model: type[Model[Any]] = resolve_name(find_task(task).model)
    return model, name


def open_stylizer(config: StylizeConfig | WebcamConfig, *, video: bool = False) -> Stylizer:
    """The network of the settings; video: one that is steady from frame to frame, where there is one of that style."""
    from perceptual.apply import Stylizer
    from perceptual.fast import prepare_kernels

    stylizer = Stylizer.load(config.style, device=config.device, video=video, precision=config.precision)
    name_own_files(config.style)
    if stylizer.device.type == "cpu":
        compile_here = os.environ.get("PERCEPTUAL_KERNELS") == "compile"
        if not prepare_kernels(compile_here=compile_here) and compile_here:
            say("PERCEPTUAL_KERNELS=compile: compiling failed, or gcc is missing; painting goes on without kernels.")
    return stylizer


def name_own_files(style: str) -> None:
    """Say that a style is the shipped one where the current folder holds a trained file of that name."""
    from perceptual.apply import parse_blend
    from perceptual.checkpoints import find_style

    for name in parse_blend(style):
        if os.path.isfile(own := f"{name}.safetensors") and find_style(name)[1]:
            say(f"{name} is the shipped style; your own file is --style {own}.")


def open_upscaler(config: UpscaleConfig) -> Upscaler:
    """The network of the settings: one of their own, or the shipped one for their scale."""
    from perceptual.apply import Upscaler
    from perceptual.checkpoints import is_foreign

    if config.network:
        upscaler = Upscaler.load(config.network, device=config.device)
        if is_foreign(config.network):
            say(f"{config.network}: {upscaler.card.about}; licence: {upscaler.card.licence or 'not in the file'}.")
        return upscaler
    return Upscaler.at_scale(config.scale or 4, config.loss, denoise=config.denoise, device=config.device)


@lru_cache(maxsize=4)
def _shipped(config: UpscaleConfig) -> Upscaler:
    return open_upscaler(config)


def try_out(model: Model[Any], options: Any) -> None:
    """Apply a model to one black pixel: options that it cannot do are refused once, and not for each picture."""
    import torch

    if getattr(options, "size", None) is not None:
        options = dataclasses.replace(options, size=None)  # or the pixel would become that large
    model.apply(torch.zeros(1, 3, 1, 1), options)


def apply_to_files(
    load: Callable[[], Model[Any]],
    files: Files,
    options: Any,
    options_for: Callable[[int, int], Any],
    *,
    title: str,
    mark: str,
) -> int:
    """Apply a model to each file and print what became of it; returns the exit code, 1 if any failed.

    load: gives the model, and is called once the names of the files have been checked. options: of the model's own
        type, to try it once before all files. options_for: those for a picture of that height and width. title: of the
        bar that large pictures get, such as "painting". mark: as in `run_files`.
    """

    def begin() -> Work:
        from perceptual.apply import Work

        first, hints = load(), Hints()
        try_out(first, options)

        def model_of(height: int, width: int) -> Model[Any]:
            return files.model_for(height, width) or first

        def convert(pixels: Tensor) -> Tensor:
            height, width = pixels.shape[-2:]
            own, model = options_for(height, width), model_of(height, width)
            hints.before(model, height, width, own)
            return _with_progress(model, pixels, own, title)

        return Work(
            convert,
            lambda height, width: model_of(height, width).size(height, width, options_for(height, width)),
            lambda alpha: model_of(*alpha.shape[-2:]).apply_alpha(alpha, options_for(*alpha.shape[-2:])),
            lambda height, width: model_of(height, width).at_once(height, width, options_for(height, width)),
        )

    return run_files(files, begin, mark=mark)


def _mark(name: str) -> str:
    """The mark of outputs beside their inputs: "_wave" for wave or models/Wave.safetensors, "_one_two" for a blend."""
    from perceptual.apply import parse_blend

    parts = (re.sub(r"\W+", "_", Path(part).stem.lower()).strip("_") for part in parse_blend(name))
    return "_" + "_".join(parts)


def _with_progress(model: Model[Any], pixels: Tensor, options: Any, title: str) -> Tensor:
    """The model's result, with a bar while it works if the picture takes several tiles or bands.

    Pictures that are worked on at the same time, each in a thread of its own, get no bar.
    """
    steps = model.run(pixels, options)
    first = next(steps)
    if first.message:
        say(first.message)
        first = next(steps)
    rest = itertools.chain([first], steps)
    alone = threading.current_thread() is threading.main_thread()
    *_, last = with_bar(rest, title, brief=True) if alone and (first.total or 1) > 1 else rest
    result: Tensor = last.result
    return result
