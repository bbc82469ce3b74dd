"""perceptual train style and perceptual train upscale."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from perceptual.cli.terminal import INTERRUPTED, say, show, stop_on_signal, with_bar
from perceptual.cli.weights import fetch_missing, weight_paths
from perceptual.config import (
    StyleRecipe,
    TrainCommand,
    TrainStyleConfig,
    TrainUpscaleConfig,
    UpscaleRecipe,
    differences,
    named_weights,
    to_dict,
)
from perceptual.errors import ConfigError, shown
from perceptual.recipes import STYLE_RECIPES, UPSCALE_RECIPES, style_recipe, upscale_recipe

if TYPE_CHECKING:
    from perceptual.checkpoints import Card
    from perceptual.config import TrainConfig
    from perceptual.data import Photographs
    from perceptual.tasks import Task
    from perceptual.train import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainStyle(TrainStyleConfig):
    """Train a network to paint in the style of one painting (paper, section 4.1).

    A recipe sets everything; any flag changes it. Recipes: RECIPES
    Example: perceptual train style --style wave.jpg --data photos/ --out wave.safetensors
    In minutes, from the shipped network: perceptual train style --style wave.jpg --data photos/ --out wave.safetensors
    --from gallery
    """

    start_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="NETWORK")] = None
    """A trained network to begin with, shipped (gallery) or a file. Styles of the same name go on from there; others
    begin with the mean of its styles, or with the one that is named here (wave)."""
    settings: tyro.conf.OmitArgPrefixes[StyleRecipe] = dataclasses.field(default_factory=StyleRecipe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainUpscale(TrainUpscaleConfig):
    """Train a network to enlarge pictures (paper, section 4.2).

    A recipe sets everything; any flag changes it. Recipes: RECIPES
    Example: perceptual train upscale --scale 4 --loss feature --data photos/ --out mine.safetensors --from x4_pixel
    """

    start_from: Annotated[str | None, tyro.conf.arg(name="from", metavar="NETWORK")] = None
    """A trained network to begin with, shipped (x4_pixel) or a file; layers that differ, as at another scale, begin
    anew."""
    settings: tyro.conf.OmitArgPrefixes[UpscaleRecipe] = dataclasses.field(default_factory=UpscaleRecipe)


def train_style(arguments: Sequence[str]) -> int:
    """perceptual train style: a painting and a folder of photographs in, a checkpoint out."""
    base = _value_of("--from", arguments)
    recipe = _value_of("--recipe", arguments) or ("own" if base else TrainStyleConfig.recipe)
    settings = style_recipe(recipe)
    if base:
        from perceptual.tasks import recipe_from

        settings = recipe_from(settings, base)
    defaults = _TrainStyle(recipe=recipe, settings=settings)
    listed = "; ".join(f"{name}: {about}" for name, (about, _) in STYLE_RECIPES.items())
    _TrainStyle.__doc__ = (_TrainStyle.__doc__ or "").replace("RECIPES", listed)
    config = tyro.cli(_TrainStyle, args=arguments, prog="perceptual train style", default=defaults)
    if config.style and config.out is None:
        config = dataclasses.replace(config, out=Path(f"{config.style[0].stem}.safetensors"))
    if config.dry_run:
        show(json.dumps(to_dict(config), indent=2, ensure_ascii=False), lines=True)
        return 0
    if config.search:
        from perceptual.cli.search import search

        return search(config, config.settings, lambda out, each: _train(config, recipe, out=out, settings=each))
    return _train(config, recipe)


def _train(config: _TrainStyle, recipe: str, **changed: Any) -> int:
    """Train one network, with the settings but for those that are changed; the exit code."""
    config = dataclasses.replace(config, **changed)
    trainer, dataset = _prepare(config, recipe)
    code = _run(trainer, dataset)
    if config.start_from and os.path.isfile(config.start_from) and trainer.task.card(trainer.step).base:
        say(f"It holds the style only: keep the network {config.start_from} in the same folder.")
    return code


def _prepare(config: _TrainStyle, recipe: str) -> tuple[Trainer, Photographs]:
    """Check everything that can be checked before downloads and work, then set the run up."""
    from perceptual.files import check_no_input
    from perceptual.paintings import read_paintings
    from perceptual.tasks import read_base, start_from, style_task
    from perceptual.train import check_out

    settings = config.settings
    if not config.style or config.data is None or config.out is None:
        raise ConfigError("Training needs --style PAINTING and --data FOLDER, a folder of photographs.")
    if settings.train.style_steps and not config.start_from:
        raise ConfigError("Gamma and beta alone teach a trained network only: add --from gallery, or --style-steps 0.")
    check_no_input(config.out, [*config.style, config.start_from or "", *weight_paths(config.weights).values()])
    check_out(config.out, resume=config.resume, overwrite=config.overwrite)
    paintings = read_paintings(config.style, settings)
    if config.start_from:
        read_base(config.start_from, settings.network)
    dataset = _photographs(config, settings.train, leave_out=config.style)
    paths = weight_paths(config.weights)
    fetch_missing((*settings.loss.content_layers, *settings.loss.style_layers), paths)
    changed = differences(to_dict(style_recipe(recipe)), to_dict(settings))
    label = _label(config, dataset, changed)
    task = style_task(paintings, dataset, settings, label=label, paths=paths)
    if config.start_from:
        task = start_from(task, config.start_from)
    trainer = _trainer(config, settings.train, task)
    say(f"Training {', '.join(paintings)} on {len(dataset)} photographs with {trainer.describe()}.")
    return trainer, dataset


def _photographs(config: TrainCommand, train: TrainConfig, leave_out: Sequence[Path] = ()) -> Photographs:
    from perceptual.data import Photographs
    from perceptual.train import side_path

    if config.data is None or config.out is None:
        raise ConfigError("Training needs --data FOLDER, a folder of photographs.")
    out = (*leave_out, side_path(config.out, ".previews"))
    flat = isinstance(config, TrainStyleConfig)
    return Photographs(config.data, train.size, seed=train.seed, crop=train.crop, leave_out=out, skip_flat=flat)


def _label(config: _TrainStyle | _TrainUpscale, data: Photographs, changed: Iterable[str]) -> Card:
    """The part of a card that is known before training."""
    from perceptual.checkpoints import Card

    return Card(
        task="style" if isinstance(config, _TrainStyle) else "upscale",
        network=config.settings.network,
        about=config.about,
        licence=config.licence,
        data=f"{len(data)} photographs",
        recipe=config.recipe,
        changed=tuple(changed),
    )


def _trainer(config: TrainCommand, train: TrainConfig, task: Task) -> Trainer:
    from perceptual.train import Trainer

    trainer = Trainer(task, train, config.out or "", device=config.device, tensorboard=config.tensorboard)
    trainer.begin(resume=config.resume, overwrite=config.overwrite)
    return trainer


def _run(trainer: Trainer, dataset: Photographs) -> int:
    """Train with a bar, previews and Ctrl-C; the exit code."""
    from perceptual.train import save_preview

    with stop_on_signal() as stopping, closing(trainer.run(dataset)) as run:
        for step in with_bar(run, "training", trainer.step):
            if step.preview is not None:
                save_preview(trainer.out, step)
            if stopping:
                break
    skipped = (
        f" {len(trainer.unreadable)} files were skipped: not readable, or of one colour." if trainer.unreadable else ""
    )
    say(f"Wrote {trainer.out} after {trainer.step} steps.{skipped}")
    if stopping:
        say("Stopped early; the same command with --resume goes on from here.")
    return INTERRUPTED if stopping else 0


def train_upscale(arguments: Sequence[str]) -> int:
    """perceptual train upscale: a folder of photographs in, a checkpoint out."""
    recipe = _value_of("--recipe", arguments) or TrainUpscaleConfig.recipe
    wanted = _value_of("--scale", arguments) or str(TrainUpscaleConfig.scale)
    if not wanted.isdecimal() or len(wanted) > 9:
        raise ConfigError(f"--scale is {shown(wanted)}: give a whole number from 2 to 16, such as 4.")
    plain = upscale_recipe(recipe, int(wanted))
    defaults = _TrainUpscale(recipe=recipe, scale=int(wanted), settings=plain)
    listed = "; ".join(f"{name}: {about}" for name, (about, _, _) in UPSCALE_RECIPES.items())
    _TrainUpscale.__doc__ = (_TrainUpscale.__doc__ or "").replace("RECIPES", listed)
    config = tyro.cli(_TrainUpscale, args=arguments, prog="perceptual train upscale", default=defaults)
    if config.out is None:
        config = dataclasses.replace(config, out=Path(f"x{config.scale}.safetensors"))
    if config.dry_run:
        show(json.dumps(to_dict(config), indent=2, ensure_ascii=False), lines=True)
        return 0
    from perceptual.checkpoints import find_network
    from perceptual.files import check_no_input
    from perceptual.losses import PIXELS, reconstruction_terms
    from perceptual.tasks import go_on_from, new_upscaler, upscale_task
    from perceptual.train import check_out

    check_no_input(config.out or Path(), [config.start_from or "", *weight_paths(config.weights).values()])
    check_out(config.out or Path(), resume=config.resume, overwrite=config.overwrite)
    if (made := new_upscaler(config.settings).scale) != config.scale:
        raise ConfigError(f"The network of that architecture enlarges {made} times: give --scale {made} with it.")
    if config.start_from:
        find_network(config.start_from, task="upscale")
    dataset = _photographs(config, config.settings.train)
    paths = weight_paths(config.weights)
    terms = reconstruction_terms(named_weights(config.settings.loss), config.scale)
    fetch_missing([layer for term, _ in terms.values() for layer in term.layers if layer != PIXELS], paths)
    changed = differences(to_dict(plain), to_dict(config.settings))
    label = _label(config, dataset, changed)
    task = upscale_task(dataset, config.settings, label=label, paths=paths)
    if config.start_from:
        task = go_on_from(task, config.start_from)
    trainer = _trainer(config, config.settings.train, task)
    say(f"Training x{config.scale} by {config.settings.loss} on {len(dataset)} photographs with {trainer.describe()}.")
    return _run(trainer, dataset)


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that decides the defaults of the others, before they are parsed."""
    for index, word in enumerate(arguments):
        if word == flag and index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            return arguments[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None
