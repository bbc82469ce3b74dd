"""Stylizer: a trained style network that paints images of any kind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.checkpoints import Card
from perceptual.config import PaintOptions, Precision, StylizeConfig, named_weights
from perceptual.devices import channels_last, choose_device, free_memory, multiplies_bytes
from perceptual.errors import CheckpointError, ConfigError, ImageError
from perceptual.fast import BAND, Inference, supports
from perceptual.functional import crossfade, luma, noise_field
from perceptual.networks import DAMAGED, TransformationNetwork

Image = TypeVar("Image")
WHOLE = 8 << 20
"""Pixels up to which a picture is painted in one piece where the memory allows, and not in bands."""


def parse_blend(text: str) -> dict[str, float]:
    """The weights of "starry_night:0.7,wave:0.3", scaled to sum to 1; a name without a number weighs 1.

    Raises:
        ConfigError: a part has no name, or a weight is not a number from 0 to 1e12, or all weights are 0.
    """
    if os.path.isfile(os.path.expanduser(text)):  # whose name may hold a comma
        return {text: 1.0}
    found = named_weights(text, "blend of styles", "starry_night:0.7,wave:0.3")
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()}


class Stylizer:
    """A style network that takes and gives images of any kind; load it once, call it often.

    >>> painting = Stylizer.load("starry_night")(photograph)    # PIL, numpy or tensor alike
    >>> blended = Stylizer.load("starry_night:0.7,wave:0.3")(photograph)

    Attributes: `card`, what the network is and how it came to be; `styles`, the names that it knows, in their
    order; `blend`, the share of each by its number, when no style is named; `device`; `precision`: "auto", what the
    processor computes fastest, "int8" or "float32".
    """

    def __init__(self, network: TransformationNetwork, card: Card, *, device: torch.device | str | None = None) -> None:
        self.device = choose_device(str(device or "auto"))
        self.network = channels_last(deepcopy(network).eval().to(self.device))  # the caller's stays as it is
        self.precision: Precision = "auto"
        self._inferences: dict[Precision, Inference | None] = {}
        self.card = card
        self.styles = card.styles
        self.blend = {0: 1.0}

    @classmethod
    def load(cls, name: str | Path, *, device: torch.device | str | None = None, video: bool = False) -> Stylizer:
        """Load a shipped style by name, a trained network by path, or a blend of styles that share one network.

        video: take a shipped style from the network that was trained to be steady from frame to frame.

        Raises:
            CheckpointError: no such style or file, or it is damaged, or not a style network.
            ConfigError: no blend, or one of styles of different networks.
        """
        blend = parse_blend(str(name))
        try:
            stylizer = cls._load(blend, device, video=video)
        except ConfigError:  # a style of one's own blends with the shipped network that it was learnt with alone
            if len(blend) == 1:
                raise
            stylizer = cls._load(blend, device, video=not video)
        return stylizer

    @classmethod
    def _load(cls, blend: Mapping[str, float], device: torch.device | str | None, *, video: bool) -> Stylizer:
        found = [(checkpoints.find_style(part, video=video), share) for part, share in blend.items()]
        parts = [(Path(os.path.realpath(path)), style, share) for (path, style), share in found]
        files = list(dict.fromkeys(path for path, _, _ in parts))
        loaded = [checkpoints.load(path, task="style") for path in files]
        for path, (network, card) in zip(files, loaded, strict=True):
            if card.styles and len(card.styles) != network.styles:
                raise CheckpointError(
                    f"{path} names {len(card.styles)} styles and holds {network.styles}: get the file again."
                )
        network, card = loaded[0] if len(files) == 1 else checkpoints.join(loaded)
        stylizer = cls(network, card, device=device)
        firsts = list(itertools.accumulate((each.styles for each, _ in loaded), initial=0))
        stylizer.blend = {}
        for path, style, share in parts:
            at = files.index(path)
            row = firsts[at] + (loaded[at][1].styles.index(style) if style else 0)
            stylizer.blend[row] = stylizer.blend.get(row, 0) + share
        return stylizer

    def __call__(self, image: Image, **options: Unpack[PaintOptions]) -> Image:
        """Paint an image; the result is of the same kind, height and width as `image`, unless `size` is given.

        image: PIL image, numpy array (H, W, 3) uint8 or float [0, 1], or tensor (3, H, W) or (N, 3, H, W) in [0, 1].
        style: one of the network's styles, by name, or a blend of them such as "starry_night:0.7,wave:0.3"; when left
            out, what was loaded.
        strength: 0 gives the photograph back, 1 the full style; between them a mix, with the contrast of both.
        keep_colors: take only the luma from the painting and the colours from the photograph.
        style_scale: size of the strokes, 1 as the network learnt them. 4 gives a picture of 2048 px strokes as large,
            relative to it, as 1 gives one of 512.
        size: paint at this longer side, in pixels; the result has it too.
        noise: how much of the network's own noise goes in, from 0 to 2. It decides where strokes lie in flat areas.

        Raises:
            ConfigError: strength, style_scale or noise out of range, an unknown style, a size below 1.
            ImageError: not an image, or one too large for the free memory.
        """
        painted = self.stylize(images.from_any(image), **options)
        return images.to_kind_of(painted, image)

    @torch.no_grad()
    def stylize(self, pixels: Tensor, **options: Unpack[PaintOptions]) -> Tensor:
        """As calling, on a tensor (N, 3, H, W), in [0, 1] or uint8 levels; returns one of its dtype on the CPU.

        Levels take a quarter of the memory, which matters for large pictures.
        """
        settings: dict[str, Any] = dict(options)
        if unknown := sorted(set(settings) - set(PaintOptions.__annotations__)):
            raise TypeError(
                f"Stylizer has no option {unknown[0]!r}: choose from {', '.join(PaintOptions.__annotations__)}."
            )
        weights = self._weights(settings.pop("style", None))
        chosen = StylizeConfig(**settings, precision=self.precision)  # which refuses what is out of range
        strength, keep_colors, size = chosen.strength, chosen.keep_colors, chosen.size
        height, width = pixels.shape[-2:]
        if size is not None:
            height, width = images.scaled_size(height, width, size / max(height, width))
        resized = (height, width) != tuple(pixels.shape[-2:])
        in_floats = pixels.dtype != torch.uint8 or resized or keep_colors or strength < 1 or chosen.style_scale != 1
        self._check_memory(height, width, chosen.style_scale, in_floats=in_floats)
        sized = pixels
        if resized:
            sized = images.resize(images.unit(pixels), size=(height, width))
        outputs = []
        for photograph in torch.split(sized, 1):  # one at a time: a batch would gain nothing and take the memory
            x = photograph.to(self.device)
            y = self._paint(x, weights, chosen)
            if keep_colors or strength < 1:
                x, y = images.unit(x), images.unit(y)
            if keep_colors:
                y = (x + luma(y) - luma(x)).clamp_(0, 1)
            if strength < 1:
                y = crossfade(x, y, strength).clamp_(0, 1) if strength else x
            outputs.append(images.like(y.cpu(), pixels))
        return torch.cat(outputs)

    def _paint(self, x: Tensor, weights: Tensor, chosen: StylizeConfig) -> Tensor:
        """The network's painting, of the size of x.

        At a scale above 1 a smaller picture is painted and enlarged, and the fine detail that the smaller one lacks is
        taken from the photograph's luma: large strokes with edges as sharp as the photograph's.
        """
        size, scale, noise = (x.shape[-2], x.shape[-1]), chosen.style_scale, chosen.noise
        smaller = images.scaled_size(*size, 1 / scale)
        if smaller == size:
            return self._run(x, weights, noise)
        x = images.unit(x)
        small = images.resize(x, size=smaller)
        y = images.resize(self._run(small, weights, noise), size=size)
        return y if scale <= 1 else (y + luma(x) - luma(images.resize(small, size=size))).clamp_(0, 1)

    def _run(self, x: Tensor, weights: Tensor, noise: float) -> Tensor:
        """The network on (1, 3, H, W), clamped: as it is, or the fast way where there is one and it pays."""
        height, width = x.shape[-2:]
        fast = self._fast
        field = noise * noise_field(height, width) if self.network.config.noise else None
        if fast is not None and fast.pays(height, width):
            return fast(x, weights, field, band=None if self._fits_whole(height, width) else BAND)
        y = self.network(images.unit(x).contiguous(memory_format=torch.channels_last), weights, field)
        if not y.isfinite().all():
            raise CheckpointError(DAMAGED)
        return images.like(y.clamp_(0, 1), x)

    @property
    def _fast(self) -> Inference | None:
        if self.precision not in self._inferences:
            self._inferences[self.precision] = self._inference()
        return self._inferences[self.precision]

    def _inference(self) -> Inference | None:
        if not all(parameter.isfinite().all() for parameter in self.network.parameters()):
            raise CheckpointError(DAMAGED)
        able = self.device.type == "cpu" and supports(self.network)
        if self.precision == "int8" and not (able and multiplies_bytes()):
            what = "This processor has no instructions for int8" if able else "This network cannot paint in int8 here"
            raise ConfigError(f"{what}: choose --precision auto or float32.")
        if not able:
            return None
        return Inference(self.network, None if self.precision == "auto" else self.precision)

    def _fits_whole(self, height: int, width: int) -> bool:
        """Whether a picture goes through in one piece, which is quicker, and not in bands."""
        return height * width <= WHOLE and self.network.memory(height, width) < free_memory(self.device) / 2

    def _weights(self, blend: str | None) -> Tensor:
        """The share of each style, (1, styles)."""
        shares = self.blend
        if blend is not None:
            named = {blend: 1.0} if blend in self.styles else parse_blend(blend)
            unknown = [name for name in named if name not in self.styles]
            if unknown:
                known = ", ".join(self.styles) or "one without a name"
                raise ConfigError(f"This network has no style {unknown[0]!r}; it has {known}.")
            shares = {self.styles.index(name): share for name, share in named.items()}
        weights = torch.zeros(1, self.network.styles, device=self.device)
        weights[0, list(shares)] = torch.tensor(list(shares.values()), device=self.device)
        return weights

    def _check_memory(self, height: int, width: int, scale: float, *, in_floats: bool) -> None:
        """Say beforehand that an image will not fit: the operating system's way is to kill the process."""
        free, longer = free_memory(self.device), max(height, width)

        def needed_at(side: float) -> float:
            return self._needed(*images.scaled_size(height, width, side / longer), scale, in_floats=in_floats)

        if (needed := needed_at(longer)) > free:
            fits = (side for side in (int(longer * 0.97**k) for k in range(1, 400)) if needed_at(side) <= free)
            raise ImageError(
                f"An image of {width} x {height} px needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} "
                f"GB are free: make it smaller, for instance with --size {max(1, next(fits, 1))}."
            )

    def _needed(self, height: int, width: int, scale: float, *, in_floats: bool) -> float:
        """Bytes to paint an image of this size; in_floats: levels will not do, pictures of that size are in float32."""
        size = images.scaled_size(height, width, 1 / scale)
        floats = 4 * 4 * 3 * height * width
        whole, fast = self.network.memory(*size) + floats, self._fast
        return min(whole, fast.memory(*size) + floats * in_floats) if fast and fast.pays(*size) else whole
