"""Model: what every trained network needs to be applied to images of any kind and size."""

from __future__ import annotations

from collections.abc import Generator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.apply import tiles
from perceptual.checkpoints import Card
from perceptual.config import ModelOptions, changed
from perceptual.devices import channels_last, choose_device
from perceptual.errors import CheckpointError
from perceptual.events import Step, finish
from perceptual.networks import DAMAGED, TransformationNetwork

Image = TypeVar("Image")
Options = TypeVar("Options")
Device = torch.device | str | None


class Model(Generic[Options]):
    """A trained network that takes and gives images of any kind; load it once, call it often.

    A subclass names its `task`, as the cards of its networks do. One with options of its own names their frozen
    dataclass, `options_type`, and overrides `size`, `picture` or `apply_alpha`.

    copy: work on a copy of the network, so that the caller's stays as it is. defaults: options for calls without them.
    Attributes, not to be changed: `network`, `card`, `device`, `defaults`.
    """

    task: ClassVar[str] = ""
    options_type: ClassVar[type[Any]] = ModelOptions

    def __init__(
        self, network: TransformationNetwork, card: Card, *, device: Device = None, copy: bool = True, **defaults: Any
    ) -> None:
        self.device, self.card = choose_device(str(device or "auto")), card
        self.network = channels_last((deepcopy(network) if copy else network).eval().to(self.device))
        self.defaults: Options = self.options(self.options_type(), **defaults)

    @classmethod
    def load(cls, name: str | Path, *, device: Device = None, **defaults: Any) -> Self:
        """Load a shipped network by name, or a trained one by path.

        Raises:
            CheckpointError: no such network or file, or it is damaged, or for another task.
        """
        network, card = checkpoints.load(checkpoints.find_network(name, task=cls.task), task=cls.task)
        return cls(network, card, device=device, copy=False, **defaults)

    def __call__(self, image: Image, options: Options | None = None, **changes: Any) -> Image:
        """Apply the network to an image; the result is of the same kind.

        image: PIL image, numpy array (H, W, 3) uint8 or float [0, 1], or tensor (3, H, W) or (N, 3, H, W) in [0, 1].
        options: the options as one object; or give them by name.

        Raises:
            TypeError: an unknown option. ConfigError: an option out of range, or one that this network cannot do.
            ImageError: not an image, or one too large for the free memory. CheckpointError: a damaged network.
        """
        return finish(self.steps(image, options, **changes))

    def steps(self, image: Image, options: Options | None = None, **changes: Any) -> Generator[Step, None, Image]:
        """As calling, with a Step after each tile or band; the last one carries the result."""
        chosen, alpha = self.options(options, **changes), images.alpha_of(image)
        for step in self.run(images.from_any(image), chosen):
            if step.result is not None and alpha is not None:
                alpha = self.apply_alpha(alpha, chosen)
            yield (last := step.then(partial(images.to_kind_of, like=image, alpha=alpha)))
        return cast(Image, last.result)

    def apply(self, pixels: Tensor, options: Options | None = None, **changes: Any) -> Tensor:
        """As calling, on a tensor (N, 3, H, W), in [0, 1] or uint8 levels; returns one of its dtype on the CPU."""
        return finish(self.run(pixels, options, **changes))

    @torch.no_grad()
    def run(self, pixels: Tensor, options: Options | None = None, **changes: Any) -> Generator[Step, None, Tensor]:
        """As `apply`, with a Step after each tile or band; the last one carries the result."""
        chosen, made, total = self.options(options, **changes), list[Tensor](), len(pixels)
        for picture in torch.split(pixels, 1):  # one at a time: a batch would gain nothing and take the memory
            for step in self.picture(picture, chosen):
                pieces = step.total or 1
                total = len(pixels) * pieces
                if step.result is None:
                    yield Step(len(made) * pieces + step.index, total)
                else:
                    made.append(images.like(step.result.cpu(), pixels))
        yield Step(total, total, result=(result := torch.cat(made)))
        return result

    def options(self, options: Options | None = None, **changes: Any) -> Options:
        """The options of a call: `options`, or else `defaults`, changed by what is given by name; raises as calling."""
        return cast(Options, changed(self.options_type, self.defaults if options is None else options, changes))

    def size(self, height: int, width: int, options: Options) -> tuple[int, int]:
        """Height and width of the result for a picture of that size."""
        return images.scaled_size(height, width, self.network.scale)

    def memory(self, height: int, width: int, options: Options) -> float:
        """Bytes of memory that a picture of that size, of 8 bits, needs beside the picture itself."""
        return tiles.plan(self.network, (height, width), cast(Any, options).tile, self.device)[1]

    def picture(self, picture: Tensor, options: Options) -> Generator[Step, None, None]:
        """One picture (1, 3, H, W) in [0, 1] or levels; the last Step carries the result, in [0, 1] or levels."""
        side = tiles.tile_side(self.network, picture, cast(Any, options).tile, self.device)
        yield from tiles.in_tiles(self.forward, self.network, picture, side)

    def apply_alpha(self, alpha: Tensor, options: Options) -> Tensor:
        """The alpha channel, (1, 1, H, W) in [0, 1], of the result; it is scaled where the sizes differ."""
        return alpha

    def forward(self, x: Tensor, *style: Tensor | None) -> Tensor:
        """The network on (1, 3, H, W), in [0, 1] or levels; refuses values that are not finite and clamps to [0, 1]."""
        x = images.unit(x.to(self.device)).contiguous(memory_format=torch.channels_last)
        made: Tensor = self.network(x, *style)
        if not made.isfinite().all():
            raise CheckpointError(DAMAGED)
        return made.clamp_(0, 1)
