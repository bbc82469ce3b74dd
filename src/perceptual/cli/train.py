"""perceptual train TASK: one command for each task of the registry, made from the task's own settings.

`torchrun` or `accelerate launch` runs the command in several processes, which train together (`perceptual.train`). One
of them prints: process 0, or the first process of each computer as long as they do not know each other.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from perceptual.cli import results, run_file
from perceptual.cli.help import WrongCommandLine, check_weights, parse, words
from perceptual.cli.terminal import INTERRUPTED, be_silent, say, show, stop_on_signal, with_bar
from perceptual.cli.weights import fetch_missing
from perceptual.config import from_dict, to_dict, weight_paths
from perceptual.errors import ConfigError
from perceptual.tasks import TASKS, find_task

if TYPE_CHECKING:
    from perceptual.data import Photographs
    from perceptual.tasks.base import Task
    from perceptual.train import Processes, Trainer


def train_commands() -> dict[str, tuple[Callable[[Sequence[str]], int], str]]:
    """{"train style": (function of its arguments, one line for --help)} for every task of the registry."""
    return {f"train {name}": (partial(train, name), entry.about) for name, entry in TASKS.items()}


def train(name: str, arguments: Sequence[str]) -> int:
    """perceptual train NAME: a folder of photographs and the task's own inputs in, a checkpoint out."""
    with _only_one_prints():
        task = find_task(name)
        command = _command(task)
        config = parse(command, arguments, f"train {name}", _defaults(task, command, arguments))
        with nullcontext() if config.config else words():
            config = task.complete(config)
        if config.dry_run:
            results.put(settings=to_dict(config))
            show(json.dumps(to_dict(config), indent=2, ensure_ascii=False), lines=True)
            return 0
        if config.data is None or config.out is None or not getattr(config, "style", True):
            raise WrongCommandLine(f"Training needs {task.needs}.")
        from perceptual.train import join

        processes = join(config.device)
        if not processes.main:
            be_silent()
        if not getattr(config, "search", None):
            return _train(task, config, processes)
        from perceptual.cli.search import search

        def one(out: Path, settings: Any) -> int:
            return _train(task, replace(config, out=out, settings=settings), processes)

        return search(config, config.settings, one, processes)


@contextmanager
def _only_one_prints() -> Iterator[None]:
    """Silence all processes of a computer but the first, for parsers and warnings too. Tracebacks are printed."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    be_silent()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _defaults(task: type[Task], command: type[Any], arguments: Sequence[str]) -> Any:
    """The values of the flags that are not typed: those of the file that --config names, then those of the recipe."""
    path = _value_of("--config", arguments)
    if path is None:
        with words():
            return command(**task.defaults(lambda flag: _value_of(flag, arguments)))
    if _value_of("--recipe", arguments):
        raise WrongCommandLine("--config and --recipe both give all settings: leave one of them out.")
    held = run_file.read(path, task.name, command(**task.defaults(lambda flag: None)))

    def given(flag: str) -> str | None:
        value = held.get("start_from" if flag == "--from" else flag[2:].replace("-", "_"))
        return _value_of(flag, arguments) or (None if value is None else str(value))

    try:
        defaults = task.defaults(given)
        settings = run_file.merged(to_dict(defaults["settings"]), held.pop("settings", {}))
        found = command(**{**defaults, **held, "settings": from_dict(task.Settings, settings)})
        check_weights(found.weights)
        return found
    except ConfigError as error:
        raise ConfigError(f"--config {path}: {error}") from error


def _train(task: type[Task], config: Any, processes: Processes) -> int:
    """Train one network with these flags; the exit code."""
    trainer, dataset = _begin(task, config, processes)
    code = _run(trainer, dataset)
    if config.start_from and os.path.isfile(config.start_from) and trainer.task.card(trainer.step).base:
        from perceptual.checkpoints import read_card

        if not read_card(config.start_from).base:  # else that file holds a style only, too
            say(f"It holds the style only: keep the network {config.start_from} in the same folder.")
    return code


def _command(task: type[Task]) -> type[Any]:
    """The dataclass of the flags: those of the task's Command, then those of its settings without a prefix."""
    listed = "; ".join(f"{name}: {about}" for name, (about, _) in task.recipes.items())
    start = Annotated[str | None, tyro.conf.arg(name="from", metavar="NETWORK", help=task.begins)]
    settings = tyro.conf.OmitArgPrefixes[task.Settings]  # type: ignore[name-defined]
    fields = [("start_from", start, None), ("settings", settings, dataclasses.field(default_factory=task.Settings))]
    text, mark, example = inspect.cleandoc(task.Command.__doc__ or "").partition("Example:")
    about = f"{text}\n\nA recipe sets everything; any flag changes it. Recipes: {listed}.\n\n{mark}{example}"
    kind: type[Any] = dataclasses.make_dataclass(
        f"Train{task.__name__}", fields, bases=(task.Command,), frozen=True, kw_only=True, namespace={"__doc__": about}
    )
    return kind


def _begin(task: type[Task], config: Any, processes: Processes) -> tuple[Trainer, Photographs]:
    """Check everything that can be checked before downloads and work, then set the run up."""
    from perceptual.data import Photographs
    from perceptual.train import Trainer, side_path

    train = config.settings.train
    processes.share(train.batch)
    settings = run_file.text(task.name, config)
    processes.from_main(lambda: _check_files(task, config, settings))

    def prepare() -> tuple[Any, Photographs]:
        prepared = task.prepare(config)
        return prepared, Photographs(
            config.data,
            train.size,
            seed=train.seed,
            crop=train.crop,
            leave_out=task.files(config),
            skip_flat=task.skip_flat,
        )

    def make() -> Task:
        run = task.from_command(config, prepared, dataset, paths)
        return run.start_from(config.start_from) if config.start_from else run

    prepared, dataset = processes.together(prepare)
    paths, layers = weight_paths(config.weights), task.layers(config.settings)
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # it downloads the weights for all processes of this computer
    processes.together(lambda: fetch_missing(layers, paths) if first else None)
    processes.together(lambda: None if first else fetch_missing(layers, paths))
    run = processes.together(make)
    trainer = Trainer(run, train, config.out, device=config.device, tensorboard=config.tensorboard)
    trainer.begin(resume=config.resume, overwrite=config.overwrite)
    processes.from_main(lambda: run_file.write(side_path(config.out, ".toml"), settings))
    say(f"Training {run.title} on {len(dataset)} photographs with {trainer.describe()}.")
    return trainer, dataset


def _check_files(task: type[Task], config: Any, settings: str) -> None:
    """Check that the run has its files, and that it will not replace others. settings: the text of the run's file."""
    from perceptual.files import check_no_input
    from perceptual.train import check_out, side_path

    check_no_input(config.out, [*task.files(config), config.start_from or "", *weight_paths(config.weights).values()])
    check_out(config.out, resume=config.resume, overwrite=config.overwrite)
    side = side_path(config.out, ".toml")
    run_file.check_new(side, config.config, settings, replace=config.resume or config.overwrite)


def _run(trainer: Trainer, dataset: Photographs) -> int:
    """Train with a bar, previews and Ctrl-C; the exit code."""
    from perceptual.train import save_preview

    losses: dict[str, float] = {}
    several = trainer.processes.count > 1
    with stop_on_signal(launched=several) as stopping, closing(trainer.run(dataset, stopping)) as run:
        for step in with_bar(run, "training", trainer.step):
            losses = dict(step.losses)
            if step.preview is not None:
                save_preview(trainer.out, step)
    stopped = trainer.processes.stopped
    results.put(
        output=trainer.out,
        steps=trainer.step,
        losses=losses,
        photographs=len(dataset),
        skipped=sorted(trainer.unreadable),
        stopped_early=stopped,
    )
    skipped = f" {len(trainer.unreadable)} files were skipped: not readable, or of one colour."
    say(f"Wrote {trainer.out} after {trainer.step} steps.{skipped if trainer.unreadable else ''}")
    if stopped:
        say("Stopped early; the same command with --resume goes on from here.")
    return INTERRUPTED if stopped else 0


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that decides the defaults of the others, before they are parsed."""
    found = None
    for index, word in enumerate(arguments):  # the last one counts
        if word == flag and index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            found = arguments[index + 1]
        if word.startswith(flag + "="):
            found = word.partition("=")[2]
    return found
