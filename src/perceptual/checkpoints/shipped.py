"""Finds the networks and style targets that are shipped with the package."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from torch import Tensor

from perceptual.checkpoints.card import read_card
from perceptual.checkpoints.hub import download, is_hub_name, parse_hub_name
from perceptual.checkpoints.tensors import read
from perceptual.errors import CheckpointError
from perceptual.images.finding import IMAGE_SUFFIXES

COMMANDS = {"style": "perceptual stylize", "upscale": "perceptual upscale"}
"""The command that uses the shipped networks for a task."""


def networks(task: str) -> dict[str, Path]:
    """The shipped networks for a task, such as "style" or "upscale": {name: file}."""
    folder = Path(str(resources.files("perceptual"))) / "models" / task
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def gallery(*, video: bool = False) -> dict[str, Path]:
    """The shipped styles: {name: file of the network}.

    video: if several networks have a style, choose one that was trained for video; otherwise one that was not.
    """
    cards = {path: read_card(path) for path in networks("style").values()}
    found: dict[str, Path] = {}
    for path in sorted(cards, key=lambda path: ("temporal" in cards[path].weights) != video):
        for style in cards[path].styles:
            found.setdefault(style, path)
    return found


def written_as(name: str, known: Iterable[str]) -> str | None:
    """Find a name in another spelling: "Starry Night" and "starry-night" find starry_night.

    Upper and lower case are the same; spaces and hyphens are the same as underscores.

    Returns the name in `known`; None if there is no such name.
    """
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return next((each for each in known if plain == re.sub(r"[\s_-]+", "_", each.lower())), None)


def guess(name: str, known: Iterable[str]) -> str:
    """The text " (did you mean starry_night?)" with the most similar name in `known`; "" if no name is similar."""
    by_plain = {each.lower(): each for each in known}
    close = difflib.get_close_matches(re.sub(r"[\s-]+", "_", name.strip().lower()), by_plain, n=1)
    return f" (did you mean {by_plain[close[0]]}?)" if close else ""


def find_style(name: str | Path, *, video: bool = False) -> tuple[Path, str | None]:
    """Find a shipped style, a shipped network or a file.

    name: the name of a style or a network, or a path. "Starry Night" and "starry-night" also find starry_night, if
        there is no file with that name. video: as in `gallery`.

    Returns (file of the network, name of the style) for a style, and (file, None) for a network or a path.

    Raises:
        CheckpointError: nothing was found; the message lists the shipped styles.
    """
    styles = gallery(video=video)
    if str(name) in styles:
        return styles[str(name)], str(name)
    known = written_as(str(name), styles)
    if known and str(name) not in networks("style") and not os.path.isfile(os.path.expanduser(name)):
        return styles[known], known
    return find_network(name, task="style"), None


def find_network(name: str | Path, *, task: str) -> Path:
    """Find the file of a network.

    name: the name of a shipped network for this task, a path, or a network on the Hugging Face hub, such as
        hf://user/name, which is downloaded into the hub's cache (see `download`).

    Raises:
        CheckpointError: nothing was found; the message lists the shipped networks for the task.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise CheckpointError(f"{name!r} is not the name of a network: give text or a path.")
    named = networks(task)
    if str(name) in named:
        return named[str(name)]
    if is_hub_name(name):
        place = parse_hub_name(name)
        return download(place.repo, revision=place.revision, file=place.file)
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        how = f"train one with `perceptual train {task}`"
        if task == "style":
            how = (f"learn it with `perceptual train style --style {path} --data PHOTOS --from gallery`, or paint one "
                   f"photo without training by `perceptual optimize style PHOTO {path}`")  # fmt: skip
        raise CheckpointError(f"{path} is a picture, not a trained network: {how}.")
    if os.path.isfile(path):
        return path
    if other := written_as(str(name), named):
        return named[other]
    styles = [style for file in named.values() for style in read_card(file).styles]
    known = list(dict.fromkeys((*named, *styles)))
    kind, own = "style" if styles else "network", f"{name}.safetensors"
    hint = f" (did you mean {own}?)" if os.path.isfile(os.path.expanduser(own)) else guess(str(name), known)
    advice = _advice(str(name), task) or f"give a trained network, or one of {', '.join(known)}"
    raise CheckpointError(f"There is no {kind} {str(name)!r}{hint}: {advice}.")


def _advice(name: str, task: str) -> str:
    """What to do about a name that is the path of no file, or the name of a network for another task; else ""."""
    for other, command in COMMANDS.items():
        if other != task and written_as(name, (*networks(other), *(gallery() if other == "style" else ()))):
            return f"that is the name of a network for `{command}`"
    if os.path.isdir(os.path.expanduser(name)):
        return "that is a folder; give a trained network in it"
    if os.path.isfile(os.path.expanduser(index := f"{name}.index")):
        return f"for that checkpoint of TensorFlow give {index}"
    if os.sep in name or re.fullmatch(r"\.[A-Za-z]\w*", Path(name).suffix):
        return "there is no file of that name; check the folder and the spelling"
    return ""


def targets(style: str) -> dict[str, Tensor]:
    """The shipped Gram matrices (paper, eq. 3) of a gallery painting: {NETWORK:LAYER: (1, C, C)}.

    With them, a style can be measured without the image of the painting.

    Raises:
        CheckpointError: there are no shipped matrices for this style.
    """
    state = read(Path(str(resources.files("perceptual"))) / "targets" / "gallery.safetensors")
    tops = {name: value for name, value in state.items() if name.startswith(f"{style} ") and name.endswith(" top")}
    if not tops:
        raise CheckpointError(f"There are no shipped style targets for {style!r}: give the painting.")
    names = {name: name.removesuffix(" top") for name in tops}
    return {name.removeprefix(f"{style} "): state[name].float() * tops[top] for top, name in names.items()}
