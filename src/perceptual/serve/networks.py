"""The networks of the service. Requests choose them by name only, never by a path. Each is loaded once."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from perceptual import checkpoints
from perceptual.apply import Model, Part, Stylizer, Upscaler
from perceptual.checkpoints import Card, shipped
from perceptual.config import PaintOptions, StylizeRequest, UpscaleRequest, named_weights
from perceptual.errors import ConfigError
from perceptual.serve.refusals import Refused

M = TypeVar("M", bound=Model[Any])

BLENDS = 8
"""Number of blends of several files that are kept. A network of one file is always kept."""


@dataclass(frozen=True)
class Listed:
    """One name of a list. name: for requests. title: of the painting. about: how its network was made, in one sentence.

    licence: of the network. scale: how many times the network enlarges; 1 for a style.
    """

    name: str
    title: str
    about: str
    licence: str
    scale: int = 1


@dataclass(frozen=True)
class _Style:
    """A style: the file of its network, and its name in there, or None if it has none. listed: for the list."""

    file: Path
    inside: str | None
    listed: Listed


class Networks:
    """All networks that requests can choose. own: NAME=FILE of further ones. device: as in `Model`.

    `blend` and `name_of_upscaler` may be called from any thread, `stylizer` and `upscaler` from one thread.

    Raises:
        ConfigError: a part of `own` is not NAME=FILE, or its name is taken or unusual.
        CheckpointError: a file is missing or damaged, or not a network that paints or enlarges.
    """

    def __init__(self, own: Sequence[str] = (), *, device: str = "auto") -> None:
        self.device = device
        self._styles: dict[str, _Style] = {}
        self._upscalers: dict[str, tuple[Path, Listed]] = {}
        self._kept: dict[object, Model[Any]] = {}
        self._blends: OrderedDict[object, Stylizer] = OrderedDict()
        for style, file in shipped.gallery().items():
            self._add_style(style, file, style)
        for name, file in shipped.networks("style").items():
            if name not in self._styles:
                self._add_style(name, file)
        for name, file in shipped.networks("upscale").items():
            self._add_upscaler(name, file, checkpoints.read_card(file))
        for pair in own:
            self._add_own(pair)

    def styles(self) -> list[Listed]:
        """The names for the option `style`."""
        return [style.listed for style in self._styles.values()]

    def upscalers(self) -> list[Listed]:
        """The names for the option `network`."""
        return [listed for _, listed in self._upscalers.values()]

    def blend(self, text: str) -> dict[str, float]:
        """{name of a style: weight} of a style or a blend of styles, as a request names them.

        Raises:
            Refused: status 404 for an unknown style, 422 for a text that is no blend.
        """
        if text in self._styles:
            return {text: 1.0}
        try:
            found = named_weights(text[:2_000])
        except ConfigError as error:
            raise Refused(422, "option", str(error)) from error
        blend: dict[str, float] = {}
        for name, weight in found.items():
            known = name if name in self._styles else checkpoints.written_as(name, self._styles)
            if known is None:
                hint = checkpoints.guess(name[:80], self._styles)
                raise Refused(404, "not_found", f"There is no style {name[:80]!r}{hint}: GET /styles lists them.")
            blend[known] = blend.get(known, 0.0) + weight
        return blend

    def stylizer(self, blend: dict[str, float], request: StylizeRequest) -> tuple[Stylizer, PaintOptions]:
        """The network for a blend, and the options of its call.

        Raises:
            ConfigError: the styles belong to different networks that cannot be blended.
        """
        styles = {name: self._styles[name] for name in blend}
        files = {style.file for style in styles.values()}
        if len(files) == 1:
            (file,) = files
            shares = [f"{style.inside}:{blend[name]!r}" for name, style in styles.items() if style.inside]
            chosen = next(iter(styles.values())).inside if len(styles) == 1 else ",".join(shares)
            return self._load(file, lambda: Stylizer.load(file, device=self.device)), request.in_style(chosen)
        whole = sum(blend.values())
        parts = tuple(Part(name, one.file, one.inside, blend[name] / whole) for name, one in sorted(styles.items()))
        if parts not in self._blends:
            self._blends[parts] = Stylizer.join(parts, device=self.device)
            if len(self._blends) > BLENDS:
                self._blends.popitem(last=False)
        self._blends.move_to_end(parts)
        return self._blends[parts], request.in_style(None)

    def name_of_upscaler(self, request: UpscaleRequest) -> str:
        """The name of the network that a request needs.

        Raises:
            Refused: status 404 for an unknown one. ConfigError: there is no network for this scale and loss.
        """
        if request.network is None:
            return Upscaler.name_at(request.scale or 4, request.loss)
        name = request.network[:80]
        known = name if name in self._upscalers else checkpoints.written_as(name, self._upscalers)
        if known is None:
            hint = checkpoints.guess(name, self._upscalers)
            raise Refused(404, "not_found", f"There is no network {name!r}{hint}: GET /upscalers lists them.")
        return known

    def upscaler(self, name: str, request: UpscaleRequest | None = None) -> Upscaler:
        """The network of that name. For a request with loss auto it also has the network for damaged pictures."""
        if request is not None and request.network is None and request.loss == "auto":
            scale = request.scale or 4
            return self._load(("auto", name), lambda: Upscaler.at_scale(scale, "auto", device=self.device))
        file, _ = self._upscalers[name]
        return self._load(file, lambda: Upscaler.load(file, device=self.device))

    def _load(self, key: object, load: Callable[[], M]) -> M:
        if key not in self._kept:
            self._kept[key] = load()
        return self._kept[key]  # type: ignore[return-value]

    def _add_own(self, pair: str) -> None:
        name, equals, path = pair.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]{1,64}", name):
            raise ConfigError(
                f"--networks takes NAME=FILE, such as mine=mine.safetensors, and not {pair!r}: a name has letters, "
                "digits, dots, dashes and underscores only."
            )
        if name in self._styles or name in self._upscalers:
            raise ConfigError(f"The name {name} in --networks is taken already: choose another one.")
        file = Path(os.path.realpath(os.path.expanduser(path)))
        if "," in str(file):
            raise ConfigError(f"{path} has a comma in its path, which blends do not allow: move or rename it.")
        card = checkpoints.read_card(file)
        if card.task == "upscale":
            self._add_upscaler(name, file, card)
            self.upscaler(name)
            return
        self._load(file, lambda: Stylizer.load(file, device=self.device))  # refuses what is not a style
        self._add_style(name, file)
        if len(card.styles) > 1:
            for style in card.styles:
                self._add_style(f"{name}/{style}", file, style)

    def _add_style(self, name: str, file: Path, inside: str | None = None) -> None:
        card = checkpoints.read_card(file)
        inside = inside or next(iter(card.styles), None)
        title = card.titles.get(inside or "", "")
        self._styles[name] = _Style(file, inside, Listed(name, title, card.about, card.licence))

    def _add_upscaler(self, name: str, file: Path, card: Card) -> None:
        scale = checkpoints.load(file, task="upscale")[0].scale
        self._upscalers[name] = file, Listed(name, "", card.about, card.licence, scale)
