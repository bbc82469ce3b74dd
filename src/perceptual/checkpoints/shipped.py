"""The networks and style targets that come with the package, found by name."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from torch import Tensor

from perceptual.checkpoints.card import read_card
from perceptual.checkpoints.tensors import FOREIGN, read
from perceptual.errors import CheckpointError
from perceptual.images.finding import IMAGE_SUFFIXES


def networks(task: str) -> dict[str, Path]:
    """The networks for a task, "style" or "upscale", that come with the package, by name."""
    folder = Path(str(resources.files("perceptual"))) / "models" / task
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def gallery(*, video: bool = False) -> dict[str, Path]:
    """The styles that come with the package, by name, with the file of the network that holds each.

    video: where several networks hold a style, the one that was trained for video, and else one that was not.
    """
    cards = {path: read_card(path) for path in networks("style").values()}
    found: dict[str, Path] = {}
    for path in sorted(cards, key=lambda path: ("temporal" in cards[path].weights) != video):
        for style in cards[path].styles:
            found.setdefault(style, path)
    return found


def written_as(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` spells in another way: "Starry Night" and "starry-night" are starry_night.

    Upper case counts as lower case, and blanks and hyphens count as underscores. None if there is no such name.
    """
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return next((each for each in known if plain == re.sub(r"[\s_-]+", "_", each.lower())), None)


def guess(name: str, known: Iterable[str]) -> str:
    """ " (did you mean starry_night?)" for stary_night: the known name that is most alike; empty if none is."""
    by_plain = {each.lower(): each for each in known}
    close = difflib.get_close_matches(re.sub(r"[\s-]+", "_", name.strip().lower()), by_plain, n=1)
    return f" (did you mean {by_plain[close[0]]}?)" if close else ""


def find_style(name: str | Path, *, video: bool = False) -> tuple[Path, str | None]:
    """(file of the network, name of the style in it) of a shipped style; (file, None) of a shipped network or a path.

    name: "Starry Night" and "starry-night" find starry_night too, if there is no file of that name.
    video: as `gallery`.

    Raises:
        CheckpointError: none of them is there; the text lists the shipped styles.
    """
    styles = gallery(video=video)
    if str(name) in styles:
        return styles[str(name)], str(name)
    known = written_as(str(name), styles)
    if known and str(name) not in networks("style") and not os.path.isfile(os.path.expanduser(name)):
        return styles[known], known
    return find_network(name, task="style"), None


def find_network(name: str | Path, *, task: str) -> Path:
    """The file of a shipped network of a task, by name, or a path.

    Raises:
        CheckpointError: none of them is there; the text lists what is shipped for the task.
    """
    named = networks(task)
    if str(name) in named:
        return named[str(name)]
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise CheckpointError(f"{path} is a picture, not a trained network: make one with `perceptual train {task}`.")
    if path.suffix.lower() in FOREIGN:
        raise CheckpointError(f"{path} is a checkpoint of another program; perceptual reads its own .safetensors only.")
    if os.path.isfile(path):
        return path
    if other := written_as(str(name), named):
        return named[other]
    styles = [style for file in named.values() for style in read_card(file).styles]
    known = list(dict.fromkeys((*named, *styles)))
    kind, own = "style" if styles else "network", f"{name}.safetensors"
    hint = f" (did you mean {own}?)" if os.path.isfile(os.path.expanduser(own)) else guess(str(name), known)
    raise CheckpointError(
        f"There is no {kind} {str(name)!r}{hint}: give a trained network, or one of {', '.join(known)}."
    )


def targets(style: str) -> dict[str, Tensor]:
    """The Gram matrices (eq. 3) of a gallery painting by NETWORK:LAYER, for measuring without the painting.

    Raises:
        CheckpointError: no matrices of that style come with the package.
    """
    state = read(Path(str(resources.files("perceptual"))) / "targets" / "gallery.safetensors")
    tops = {name: value for name, value in state.items() if name.startswith(f"{style} ") and name.endswith(" top")}
    if not tops:
        raise CheckpointError(f"The style targets of {style!r} do not come with perceptual: give its painting.")
    names = {name: name.removesuffix(" top") for name in tops}
    return {name.removeprefix(f"{style} "): state[name].float() * tops[top] for top, name in names.items()}
