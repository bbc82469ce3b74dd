"""The command `perceptual`; the only room that prints."""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from perceptual.cli.optimize import invert, optimize_style, texture
from perceptual.cli.reproduce import reproduce
from perceptual.cli.terminal import FAILED, INTERRUPTED, USAGE, say, stop_on_signal, with_bar
from perceptual.cli.weights import fetch, fetch_missing, weight_paths, weights
from perceptual.config import StyleRecipe, StylizeConfig, TrainStyleConfig, differences, to_dict
from perceptual.errors import ConfigError, PerceptualError
from perceptual.recipes import STYLE_RECIPES, style_recipe

if TYPE_CHECKING:
    from perceptual.data import Photographs
    from perceptual.train import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stylize(StylizeConfig):
    """Paint photographs in a style.

    INPUT is any number of files, folders (searched through) and globs. The output has exactly the input's size, and
    keeps its colour profile, EXIF and transparency. Example: perceptual stylize photos/ --style starry_night -o out/
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Image files, folders and globs."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The file to write, for one input file; else a folder."""


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


def stylize(arguments: Sequence[str]) -> int:
    """perceptual stylize: files in, paintings out; exit code 1 if any failed."""
    config = tyro.cli(_Stylize, args=arguments, prog="perceptual stylize")
    import torch

    from perceptual.apply import Stylizer, convert_files, plan_outputs

    if not config.inputs:
        raise ConfigError("Give at least one image, folder or glob to stylize.")
    pairs = plan_outputs(config.inputs, config.out)
    stylizer = Stylizer.load(config.style, device=config.device)
    stylizer.stylize(torch.zeros(1, 3, 1, 1), style=config.name)  # a wrong name is said once, not for every file
    how = {key: getattr(config, key) for key in ("strength", "keep_colors", "style_scale", "size")}
    paint = partial(stylizer.stylize, style=config.name, **how)
    failures, written, skipped = [], 0, 0
    began = time.monotonic()
    outcomes = convert_files(pairs, paint, skip_existing=config.skip_existing)
    for index, outcome in enumerate(outcomes, start=1):
        if outcome.error:
            failures.append(outcome)
            say(f"[{index}/{len(pairs)}] failed: {outcome.error}")
        else:
            written, skipped = written + (not outcome.skipped), skipped + outcome.skipped
            print(f"{outcome.target}" + (" (exists, skipped)" if outcome.skipped else ""), flush=True)
    say(f"{written} written, {skipped} skipped, {len(failures)} failed in {time.monotonic() - began:.1f} s.")
    if len(pairs) > 1:
        for outcome in failures:
            say(f"  failed: {outcome.error}")
    return FAILED if failures else 0


def styles(arguments: Sequence[str]) -> int:
    """perceptual styles: what is shipped, with its card."""

    def show(names: tyro.conf.Positional[tuple[str, ...]] = (), json: bool = False) -> tuple[tuple[str, ...], bool]:
        """List the styles that come with perceptual, or show the whole card of some.

        Args:
            names: Shipped styles or trained files whose cards to show in full; all in brief when left out.
            json: Print the cards as JSON.
        """
        return names, json

    wanted, as_json = tyro.cli(show, args=arguments, prog="perceptual styles")
    from perceptual.checkpoints import find_style, read_card, shipped

    files = {name: find_style(name)[0] for name in wanted} if wanted else shipped()
    cards = {name: to_dict(read_card(path)) for name, path in files.items()}
    if as_json or wanted:
        print(json.dumps(cards, indent=2, ensure_ascii=False))
        return 0
    for name, path in files.items():
        card = cards[name]
        print(f"{name} ({path.stat().st_size / 1e6:.1f} MB): {card['about']}")
        for style in card["styles"]:
            print(f"  {style:18} {card['titles'].get(style, '')}".rstrip())
        print(f"  {card['steps']} steps of recipe {card['recipe']!r} on {card['data']}; {card['licence']}")
    return 0


def train_style(arguments: Sequence[str]) -> int:
    """perceptual train style: a painting and a folder of photographs in, a checkpoint out."""
    base = _value_of("--from", arguments)
    recipe = _value_of("--recipe", arguments) or ("own" if base else TrainStyleConfig.recipe)
    settings = style_recipe(recipe)
    if base:
        from perceptual.tasks import layers_of

        network, train = layers_of(base), settings.train
        if network.norm == "batch":  # whose styles cannot be learnt alone
            train = dataclasses.replace(train, style_steps=0)
        settings = dataclasses.replace(settings, network=network, train=train)
    defaults = _TrainStyle(recipe=recipe, settings=settings)
    listed = "; ".join(f"{name}: {about}" for name, (about, _) in STYLE_RECIPES.items())
    _TrainStyle.__doc__ = (_TrainStyle.__doc__ or "").replace("RECIPES", listed)
    config = tyro.cli(_TrainStyle, args=arguments, prog="perceptual train style", default=defaults)
    if config.style and config.out is None:
        config = dataclasses.replace(config, out=Path(f"{config.style[0].stem}.safetensors"))
    if config.dry_run:
        print(json.dumps(to_dict(config), indent=2, ensure_ascii=False))
        return 0
    from perceptual.train import save_preview

    trainer, dataset = _prepare(config, recipe)
    with closing(trainer.run(dataset)) as run, stop_on_signal() as stopping:
        for step in with_bar(run, "training", trainer.step):
            if step.preview is not None:
                save_preview(trainer.out, step)
            if stopping:
                break
    skipped = f" {len(trainer.unreadable)} files could not be read and were skipped." if trainer.unreadable else ""
    say(f"Wrote {config.out} after {trainer.step} steps.{skipped}")
    if config.start_from and os.path.isfile(config.start_from) and trainer.task.card(trainer.step).base:
        say(f"It holds the style only: keep the network {config.start_from} in the same folder.")
    if stopping:
        say("Stopped early; the same command with --resume goes on from here.")
    return INTERRUPTED if stopping else 0


def _prepare(config: _TrainStyle, recipe: str) -> tuple[Trainer, Photographs]:
    """Check everything that can be checked before downloads and work, then set the run up."""
    from perceptual.checkpoints import Card
    from perceptual.data import Photographs
    from perceptual.tasks import read_base, read_paintings, start_from, style_task
    from perceptual.train import Trainer, check_out, side_path

    settings = config.settings
    if not config.style or config.data is None or config.out is None:
        raise ConfigError("Training needs --style PAINTING and --data FOLDER, a folder of photographs.")
    if settings.train.style_steps and not config.start_from:
        raise ConfigError("Gamma and beta alone teach a trained network only: add --from gallery, or --style-steps 0.")
    check_out(config.out, resume=config.resume, overwrite=config.overwrite)
    paintings = read_paintings(config.style, settings)
    if config.start_from:
        read_base(config.start_from, settings.network)
    leave_out = (*config.style, side_path(config.out, ".previews"))
    train = settings.train
    dataset = Photographs(config.data, train.size, seed=train.seed, crop=train.crop, leave_out=leave_out)
    paths = weight_paths(config.weights)
    fetch_missing((*settings.loss.content_layers, *settings.loss.style_layers), paths)
    label = Card(
        task="style",
        network=settings.network,
        about=config.about,
        licence=config.licence,
        data=f"{len(dataset)} photographs",
        recipe=recipe,
        changed=tuple(differences(to_dict(style_recipe(recipe)), to_dict(settings))),
    )
    task = style_task(paintings, dataset, settings, label=label, paths=paths)
    if config.start_from:
        task = start_from(task, config.start_from)
    trainer = Trainer(task, train, config.out, device=config.device, tensorboard=config.tensorboard)
    trainer.begin(resume=config.resume, overwrite=config.overwrite)
    say(f"Training {', '.join(paintings)} on {len(dataset)} photographs with {trainer.describe()}.")
    return trainer, dataset


def version(arguments: Sequence[str]) -> int:
    """perceptual --version."""
    from importlib.metadata import version as installed

    print(f"perceptual {installed('perceptual')}")
    return 0


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "stylize": (stylize, "paint photographs in a style"),
    "styles": (styles, "list the styles that come with perceptual, with their cards"),
    "train style": (train_style, "train a network for a painting of your own"),
    "optimize style": (optimize_style, "paint one photograph by optimising its pixels (Gatys), the slow way"),
    "optimize invert": (invert, "rebuild a picture from its features at one layer"),
    "optimize texture": (texture, "make a texture with the style of a picture"),
    "reproduce": (reproduce, "repeat an experiment of the paper: its figure, its numbers, and how ours differ"),
    "weights": (weights, "list the loss networks that training uses"),
    "weights fetch": (fetch, "download the weights of a loss network"),
    "--version": (version, "print the version"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors that a user can mend are one sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot show is no error
    try:
        for count in (2, 1):
            name = " ".join(words[:count])
            if len(words) >= count and name in COMMANDS:
                return COMMANDS[name][0](words[count:])
        return _help(words)
    except PerceptualError as error:
        say(f"perceptual: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("perceptual: stopped.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `perceptual styles | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _help(words: Sequence[str]) -> int:
    if words and words[0] not in ("-h", "--help", "help"):
        typed = " ".join(words[:2])
        groups = [name for name in COMMANDS if name.startswith(words[0] + " ")]
        close = groups or difflib.get_close_matches(words[0], COMMANDS, n=1) or list(COMMANDS)[:1]
        say(
            f"perceptual: there is no command {typed!r}; did you mean `perceptual {close[0]}`? See `perceptual --help`."
        )
        return USAGE
    print("usage: perceptual COMMAND ...    (`perceptual COMMAND --help` tells its options)\n")
    for name, (_, about) in COMMANDS.items():
        print(f"  {name:16} {about}")
    return 0 if words else USAGE


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that decides the defaults of the others, before they are parsed."""
    for index, word in enumerate(arguments):
        if word == flag and index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            return arguments[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def entry() -> None:
    """Entry point of the installed command."""
    sys.exit(main())
