"""Stylizer: applies a trained style network to images of any kind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.apply.model import Device, Model
from perceptual.apply.tiles import too_large, with_margin
from perceptual.checkpoints import Card
from perceptual.config import PaintOptions, Precision, named_weights
from perceptual.devices import free_memory
from perceptual.errors import CheckpointError, ConfigError
from perceptual.events import Step
from perceptual.fast import BAND, Inference, reads_bytes, supports
from perceptual.functional import crossfade, luma, noise_field
from perceptual.gpu import half_precision, send
from perceptual.networks import DAMAGED, TransformationNetwork

MARGIN = 16
"""Width in pixels of a mirrored margin around the image, for networks with noise. It is cut off from the result. The
loss networks pad with zeros during training, so these networks learn pale edges."""
WHOLE = 8 << 20
"""Number of pixels up to which an image is painted in one piece if there is enough memory. Larger ones are painted in
bands."""

TOGETHER = 1 << 21
"""Number of pixels that a GPU paints at once, where a batch has several pictures: 8 pictures of 512 x 512."""
NO_ROOM = "The picture does not fit into the memory of the GPU, so the processor paints it, in bands."


def parse_blend(text: str) -> dict[str, float]:
    """Parse a blend: "starry_night:0.7,wave:0.3" -> {"starry_night": 0.7, "wave": 0.3}.

    A name without a number has weight 1. The weights are scaled so that their sum is 1.

    Raises:
        ConfigError: a part has no name, a weight is not a number from 0 to 1e12, or all weights are 0.
    """
    if os.path.isfile(os.path.expanduser(text)):  # a file name may contain a comma
        return {text: 1.0}
    found = named_weights(text)
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()}


class Part(NamedTuple):
    """A style in a blend. name: for messages. style: its name in the file; None for the first one. share: 0 to 1."""

    name: str
    file: Path
    style: str | None
    share: float


class Stylizer(Model[PaintOptions]):
    """A style network for images: PIL images, numpy arrays or tensors. Load it once, and call it for each image.

    >>> painting = Stylizer.load("starry_night")(photograph)    # a PIL image, numpy array or tensor
    >>> Stylizer.load("gallery")(photograph, style="wave", strength=0.8)
    >>> blended = Stylizer.load("starry_night:0.7,wave:0.3")(photograph)

    The result has the size of the photo, unless `size` is given. The options of a call are those of
    `perceptual.config.PaintOptions`: style, strength, keep_colors, style_scale, size, noise and precision.

    Attributes: `styles`, the names of the styles in order; `blend`, {number of the style: share}, for calls without
    `style`.
    """

    task = "style"
    options_type = PaintOptions

    def __init__(
        self, network: TransformationNetwork, card: Card, *, blend: Mapping[int, float] | None = None, **others: Any
    ) -> None:
        super().__init__(network, card, **others)
        self.styles, self.blend = card.styles, dict(blend or {0: 1.0})
        self._inferences: dict[Precision, Inference | None] = {}
        self._twin: Stylizer | None = None  # on the CPU, for what does not fit on a GPU
        self._field: tuple[tuple[int, int, float], Tensor] | None = None

    @classmethod
    def load(cls, name: str | Path, *, device: Device = None, video: bool = False, **defaults: Any) -> Self:
        """Load a shipped style by name, a trained network by path, or a blend of styles of one network.

        video: use the network that was trained for video, with less flicker, if a shipped style is in several networks.

        Raises:
            CheckpointError: there is no such style or file, or the file is damaged or not a style network.
            ConfigError: the blend is invalid, or its styles belong to different networks.
        """
        blend = parse_blend(str(name))
        try:
            return cls._load(blend, video=video, device=device, **defaults)
        except ConfigError:  # a user's style can only be blended with styles of the network that it was trained from
            if len(blend) == 1:
                raise
            return cls._load(blend, video=not video, device=device, **defaults)

    @classmethod
    def _load(cls, blend: Mapping[str, float], *, video: bool, **others: Any) -> Self:
        found = [Part(name, *checkpoints.find_style(name, video=video), share) for name, share in blend.items()]
        return cls.join(found, **others)

    @classmethod
    def join(cls, parts: Sequence[Part], **others: Any) -> Self:
        """Load styles of one network, which may be in several files, as a blend. others: as of `Model`.

        Raises:
            CheckpointError: a file is damaged or not a style network. ConfigError: the styles belong to different
                networks.
        """
        parts = [part._replace(file=Path(os.path.realpath(part.file))) for part in parts]
        files = list(dict.fromkeys(part.file for part in parts))
        loaded = [checkpoints.load(path, task=cls.task) for path in files]
        for path, (network, card) in zip(files, loaded, strict=True):
            if network.scale != 1:
                raise CheckpointError(
                    f"{path} enlarges images {network.scale} times, but a style must keep their size: get another file."
                )
            if card.styles and len(card.styles) != network.styles:
                raise CheckpointError(
                    f"{path} names {len(card.styles)} styles, but contains {network.styles}: get the file again."
                )
        firsts = list(itertools.accumulate((each.styles for each, _ in loaded), initial=0))
        shares: dict[int, float] = {}
        for part in parts:
            at = files.index(part.file)
            row = firsts[at] + (loaded[at][1].styles.index(part.style) if part.style else 0)
            shares[row] = shares.get(row, 0) + part.share
        names = [", ".join(part.name for part in parts if part.file == file) for file in files]
        network, card = loaded[0] if len(files) == 1 else checkpoints.join(loaded, names)
        return cls(network, card, blend=shares, copy=False, **others)

    @property
    def precision(self) -> Precision:
        """The default precision: "int8", "float32", or "auto" for the faster one on this processor."""
        return self.defaults.precision

    def stylize(self, pixels: Tensor, options: PaintOptions | None = None, **changes: Any) -> Tensor:
        """Paint a tensor (N, 3, H, W), in [0, 1] or uint8 levels. The result has its dtype, on the CPU.

        Levels need a quarter of the memory of floats. Raises the same errors as a call.
        """
        return self.apply(pixels, options, **changes)

    def size(self, height: int, width: int, options: PaintOptions) -> tuple[int, int]:
        """Height and width of the result, for the height and width of an image in pixels."""
        longer = options.size
        return (height, width) if longer is None else images.scaled_size(height, width, longer / max(height, width))

    def at_once(self, height: int, width: int, options: PaintOptions | None = None) -> int:
        """As `Model.at_once`, by the size of the painting, which `options` may set."""
        options = options or self.defaults
        return super().at_once(*self.size(height, width, options), replace(options, size=None))

    def memory(self, height: int, width: int, options: PaintOptions) -> float:
        """Bytes of memory that painting an 8-bit image of this size needs, without the image itself."""
        size = self.size(height, width, options)
        return self._needed(size, options, in_levels=size == (height, width) and _stays_in_levels(options))

    def together(self, pixels: Tensor, options: PaintOptions) -> int:
        """How many pictures of a batch are painted at once: on a GPU as many as have TOGETHER pixels, else one."""
        height, width = self.size(pixels.shape[-2], pixels.shape[-1], options)
        return 1 if self.device.type == "cpu" else max(1, TOGETHER // (height * width))

    def picture(self, picture: Tensor, options: PaintOptions) -> Generator[Step, None, None]:
        """Paint (1, 3, H, W) in [0, 1] or uint8 levels; on a GPU also (N, 3, H, W). The last Step has the result.

        What does not fit into the memory of the GPU is painted by the CPU, in bands.
        """
        if self.device.type == "cpu":
            self._check_memory(picture, self.size(picture.shape[-2], picture.shape[-1], options), options)
            yield from self._whole(picture, options)
        elif (made := self._on_gpu(picture, options)) is not None:
            yield Step(1, 1, result=made)
        else:
            yield Step(0, message=NO_ROOM)
            if self._twin is None:
                self._twin = type(self)(self.network, self.card, blend=self.blend, device="cpu")
            yield from self._twin.run(picture, options)

    def _on_gpu(self, picture: Tensor, options: PaintOptions) -> Tensor | None:
        """The painting of (N, 3, H, W), or None if the memory of the GPU is too small."""
        size = self.size(picture.shape[-2], picture.shape[-1], options)
        share = 1.0 if self._half(options) is None else 0.5  # the estimate is that of float32
        if len(picture) * share * self._needed(size, options, in_levels=False) < free_memory(self.device):
            with suppress(torch.OutOfMemoryError):
                *_, last = self._whole(picture, options)
                painted: Tensor = last.result
                return painted
            torch.cuda.empty_cache()  # outside of the `with`, so that the failed try is freed
        return None

    def _half(self, options: PaintOptions) -> torch.dtype | None:
        return half_precision(self.device) if options.precision == "auto" else None

    def _whole(self, picture: Tensor, options: PaintOptions) -> Generator[Step, None, None]:
        """As `picture`, without a look at the memory.

        With a style scale above 1, a reduced image is painted, and the result is enlarged, see `_finish`.
        """
        weights = self._weights(options.style)
        size = self.size(picture.shape[-2], picture.shape[-1], options)
        x = send(picture, self.device)
        if size != tuple(picture.shape[-2:]):
            x = images.resize(images.unit(x), size=size)
        small, smaller = x, images.scaled_size(*size, 1 / options.style_scale)
        if smaller != size:
            x = images.unit(x)
            small = images.resize(x, size=smaller)
        for step in self._paint(small, weights, options):
            yield step.then(partial(_finish, x, small, options=options))

    def _paint(self, x: Tensor, weights: Tensor, options: PaintOptions) -> Generator[Step, None, None]:
        """Paint x, (1, 3, H, W). For networks with noise, a mirrored margin is added first and cut off afterwards."""
        if not self.network.config.noise:
            yield from self._run(x, weights, options)
            return
        for step in self._run(with_margin(x, MARGIN), weights, options):
            yield step.then(lambda painted: painted[..., MARGIN:-MARGIN, MARGIN:-MARGIN])

    def _run(self, x: Tensor, weights: Tensor, options: PaintOptions) -> Generator[Step, None, None]:
        """Call the network on (1, 3, H, W): by fast inference if that is possible and faster, else by PyTorch."""
        height, width = x.shape[-2:]
        fast = self._fast(options.precision)
        field = self._noise(height, width, options.noise)
        if fast is not None and fast.pays(height, width):
            yield from fast.paint(x, weights, field, band=None if self._fits_whole(height, width) else BAND)
        else:
            yield Step(0, 1)
            yield Step(1, 1, result=images.like(self.forward(x, weights, field, dtype=self._half(options)), x))

    def _noise(self, height: int, width: int, strength: float) -> Tensor | None:
        """The noise for a picture of this size; None where the network needs none or its own one is right.

        On a GPU the noise of the last call is kept there, since pictures of one size often follow each other.
        """
        cpu = self.device.type == "cpu"
        if not self.network.config.noise or (cpu and strength == 1):
            return None
        wanted = (height, width, strength)
        if cpu:
            return strength * noise_field(height, width)
        if self._field is None or self._field[0] != wanted:
            self._field = wanted, send(strength * noise_field(height, width), self.device)
        return self._field[1]

    def _fast(self, precision: Precision) -> Inference | None:
        if precision not in self._inferences:
            self._inferences[precision] = self._inference(precision)
        return self._inferences[precision]

    def _inference(self, precision: Precision) -> Inference | None:
        if not all(parameter.isfinite().all() for parameter in self.network.parameters()):
            raise CheckpointError(DAMAGED)
        able = self.device.type == "cpu" and supports(self.network)
        fast = Inference(self.network, "float32" if precision == "float32" else None) if able else None
        if precision == "int8" and (fast is None or fast.precision != "int8"):
            lacking = able and not reads_bytes()
            what = (
                "This processor has no int8 instructions" if lacking else "This network cannot be computed in int8 here"
            )
            raise ConfigError(f"{what}: choose --precision auto or float32.")
        return fast

    def _fits_whole(self, height: int, width: int) -> bool:
        """Whether an image can be painted in one piece, which is faster than in bands."""
        return height * width <= WHOLE and self.network.memory(height, width) < free_memory(self.device) / 2

    def _weights(self, blend: str | None) -> Tensor:
        """The share of each style, (1, styles). blend: as in `parse_blend`; None for the default."""
        shares = self.blend
        if blend is not None:
            shares = {}
            for name, share in ({blend: 1.0} if blend in self.styles else parse_blend(blend)).items():
                at = self.styles.index(self._named(name))
                shares[at] = shares.get(at, 0) + share
        weights = torch.zeros(1, self.network.styles)
        weights[0, list(shares)] = torch.tensor(list(shares.values()))
        return send(weights, self.device)

    def _named(self, name: str) -> str:
        """The name of a style of this network, for another spelling of it: "Starry Night" -> starry_night."""
        found = name if name in self.styles else checkpoints.written_as(name, self.styles)
        if found is None:
            known = ", ".join(self.styles) or "one style without a name"
            hint = checkpoints.guess(name, self.styles)
            raise ConfigError(f"This network has no style {name!r}{hint}; it has {known}.")
        return found

    def _check_memory(self, picture: Tensor, size: tuple[int, int], options: PaintOptions) -> None:
        """Raise an ImageError if painting at `size` (height, width) needs more memory than is free.

        The message names a size that fits. Without this check the operating system would kill the process.
        """
        free, longer = free_memory(self.device), max(size)
        in_levels = picture.dtype == torch.uint8 and size == tuple(picture.shape[-2:]) and _stays_in_levels(options)

        def needed_at(side: float) -> float:
            return self._needed(images.scaled_size(*size, side / longer), options, in_levels=in_levels)

        if (needed := needed_at(longer)) > free:
            fits = (side for side in (int(longer * 0.97**k) for k in range(1, 400)) if needed_at(side) <= free)
            raise too_large(size, needed, free, f"make it smaller, for instance with --size {max(1, next(fits, 1))}")

    def _needed(self, size: tuple[int, int], options: PaintOptions, *, in_levels: bool) -> float:
        """Bytes of memory to paint an image of this size. in_levels: True if no float32 copies of it are made."""
        margin = 2 * MARGIN if self.network.config.noise else 0
        height, width = images.scaled_size(*size, 1 / options.style_scale)
        small = (height + margin, width + margin)
        floats = 4 * 4 * 3 * size[0] * size[1]
        whole, fast = self.network.memory(*small) + floats, self._fast(options.precision)
        if fast is None or not fast.pays(*small):
            return whole
        return min(whole, fast.memory(*small) + (0 if in_levels else floats))


def _stays_in_levels(options: PaintOptions) -> bool:
    """Whether an 8-bit image that keeps its size is painted without float32 copies of it."""
    return options.style_scale == 1 and not options.keep_colors and options.strength == 1


def _finish(x: Tensor, small: Tensor, y: Tensor, *, options: PaintOptions) -> Tensor:
    """Apply size, keep_colors and strength to the result of the network.

    If `small` is smaller than x, the missing detail is added from the luma of the photo. So the strokes are large, and
    the edges are as sharp as in the photo.

    x: the photo, (1, 3, H, W). small: the image that the network painted, x or a reduced copy. y: the network's result
    for `small`.
    """
    size = (x.shape[-2], x.shape[-1])
    if small.shape != x.shape:
        y = images.resize(y, size=size)
        if options.style_scale > 1:
            y = (y + luma(x) - luma(images.resize(small, size=size))).clamp_(0, 1)
    if options.keep_colors or options.strength < 1:
        x, y = images.unit(x), images.unit(y)
    if options.keep_colors:
        y = (x + luma(y) - luma(x)).clamp_(0, 1)
    if options.strength < 1:
        y = crossfade(x, y, options.strength).clamp_(0, 1) if options.strength else x
    return y
