"""The tasks that networks are trained for. Each is one file; this registry finds it by name.

`TASKS` maps the name of a task, as cards and `perceptual train NAME` write it, to where its class is. A program of your
own adds a task by one line: `perceptual.tasks.TASKS["denoise"] = TaskEntry("my_module:Denoise", "remove noise")`.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from perceptual.errors import ConfigError, shown

if TYPE_CHECKING:
    from perceptual.tasks.base import Task


class TaskEntry(NamedTuple):
    """Where a task is: "module:Class" of a `tasks.base.Task`, imported on first use, and a line for `--help`."""

    home: str
    about: str


TASKS: dict[str, TaskEntry] = {
    "style": TaskEntry("perceptual.tasks.style:Style", "train a network for a painting of your own"),
    "upscale": TaskEntry("perceptual.tasks.upscale:Upscale", "train a network that enlarges pictures"),
}


def find_task(name: str) -> type[Task]:
    """The class of a task by name.

    Raises:
        ConfigError: there is no such task.
    """
    if name not in TASKS:
        raise ConfigError(f"There is no task {shown(name)}; the tasks are {', '.join(TASKS)}.")
    task: type[Task] = resolve_name(TASKS[name].home)
    return task
