"""The registry of tasks. Each task is one file, found by its name.

`TASKS` maps the name of a task to the place of its class. Cards and `perceptual train NAME` use this name. Your own
program adds a task with one line: `perceptual.tasks.TASKS["denoise"] = TaskEntry("my_module:Denoise", "remove noise")`.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from perceptual.errors import ConfigError, shown

if TYPE_CHECKING:
    from perceptual.tasks.base import Task


class TaskEntry(NamedTuple):
    """An entry of the registry.

    home: "module:Class" of a subclass of `tasks.base.Task`; it is imported on first use. about: one line for `--help`.
    """

    home: str
    about: str


TASKS: dict[str, TaskEntry] = {
    "style": TaskEntry("perceptual.tasks.style:Style", "train a network for a painting of your own"),
    "upscale": TaskEntry("perceptual.tasks.upscale:Upscale", "train a network that enlarges pictures"),
}


def find_task(name: str) -> type[Task]:
    """Import a task and return its class.

    Raises:
        ConfigError: there is no such task.
    """
    if name not in TASKS:
        raise ConfigError(f"There is no task {shown(name)}; the tasks are {', '.join(TASKS)}.")
    task: type[Task] = resolve_name(TASKS[name].home)
    return task
