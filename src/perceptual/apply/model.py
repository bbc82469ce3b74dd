"""Model: the base class of trained networks that are applied to images of any kind and size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import nullcontext
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
from perceptual.devices import channels_last, choose_device, free_memory
from perceptual.errors import CheckpointError, ImageError
from perceptual.events import Step, finish
from perceptual.fast import kernels_in_use
from perceptual.gpu import Function, Graphs, fetch, send
from perceptual.networks import DAMAGED, TransformationNetwork

Image = TypeVar("Image")
Options = TypeVar("Options")
Device = torch.device | str | None


SMALL = 1 << 20
"""Pixels of a frame up to which frames of a video are worked on side by side."""


class Model(Generic[Options]):
    """A trained network for images: PIL images, numpy arrays or tensors. Load it once, and call it for each image.

    A subclass sets `task`, the name of its task in cards. A subclass with its own options also sets `options_type`, a
    frozen dataclass, and overrides `size`, `picture` or `apply_alpha`.

    copy: copy the network, so that the caller's network is not changed. defaults: options that every call uses unless
    it changes them. Attributes (do not change them): `network`, `card`, `device`, `defaults`.
    """

    task: ClassVar[str] = ""
    options_type: ClassVar[type[Any]] = ModelOptions

    def __init__(
        self, network: TransformationNetwork, card: Card, *, device: Device = None, copy: bool = True, **defaults: Any
    ) -> None:
        self.device, self.card = choose_device(str(device or "auto")), card
        self.network = channels_last((deepcopy(network) if copy else network).eval().to(self.device))
        self.defaults: Options = self.options(self.options_type(), **defaults)
        self._graphs: dict[torch.dtype | None, Graphs] = {}

    @classmethod
    def load(cls, name: str | Path, *, device: Device = None, **defaults: Any) -> Self:
        """Load a network. name: a shipped network, the path of a trained one, or hf://user/name on the hub.

        Raises:
            CheckpointError: there is no such network or file, or the file is damaged or for another task.
        """
        network, card = checkpoints.load(checkpoints.find_network(name, task=cls.task), task=cls.task)
        return cls(network, card, device=device, copy=False, **defaults)

    @classmethod
    def from_pretrained(
        cls,
        repo: str | Path,
        *,
        revision: str | None = None,
        file: str | None = None,
        device: Device = None,
        **defaults: Any,
    ) -> Self:
        """Load a network from the Hugging Face hub, or from a folder that `save_pretrained` wrote.

        >>> Stylizer.from_pretrained("user/name", revision="v1.0")

        repo: "user/name", or the folder. revision: a branch, tag or commit. file: the name of the file, where there is
        more than one.

        Raises:
            ConfigError: huggingface_hub is not installed.
            CheckpointError: there is no such repository, revision or file; the hub cannot be reached and the file is
                not in its cache; or the file is not a network of perceptual for this task.
        """
        path = checkpoints.download(repo, revision=revision, file=file)
        return cls.load(path, device=device, **defaults)

    def save_pretrained(self, folder: str | Path, *, repo: str = "user/name") -> Path:
        """Write the network to a folder, as model.safetensors in float32, with a model card in README.md.

        repo: the name that the examples of the model card use. Returns the file of the network.

        Raises:
            ConfigError: huggingface_hub is not installed. OutputError: the folder cannot be written.
        """
        return checkpoints.save_folder(folder, self.network, self.card, repo=repo)

    def push_to_hub(self, repo: str, *, private: bool = False, message: str = "") -> str:
        """Upload the network to the Hugging Face hub, with a model card; returns the address of the commit.

        repo: "user/name"; it is made if it does not exist. private: make a new repository private. An existing one must
            be private already. message: the text of the commit. The token is that of HF_TOKEN or of `hf auth login`.

        Raises:
            ConfigError: huggingface_hub is not installed.
            OutputError: there is no token, the hub cannot be reached, or it refuses.
        """
        with tempfile.TemporaryDirectory(prefix="perceptual-") as folder:
            path = self.save_pretrained(folder, repo=repo)
            return checkpoints.push(path, repo, private=private, message=message)

    def __call__(self, image: Image, options: Options | None = None, **changes: Any) -> Image:
        """Apply the network to an image. The result has the same type.

        image: PIL image, numpy array (H, W, 3) uint8 or float [0, 1], or tensor (3, H, W) or (N, 3, H, W) in [0, 1].
        options: the options as one object. changes: single options by name, such as strength=0.8.

        Raises:
            TypeError: an option is unknown. ConfigError: an option is out of range or not possible for this network.
            ImageError: this is not an image, or it is too large for the free memory.
            CheckpointError: the network is damaged.
        """
        return finish(self.steps(image, options, **changes))

    def steps(self, image: Image, options: Options | None = None, **changes: Any) -> Generator[Step, None, Image]:
        """The same as a call, as a generator of Steps: one after each tile or band. The last one has the result."""
        chosen, alpha = self.options(options, **changes), images.alpha_of(image)
        exact = getattr(chosen, "precision", "") == "float32"  # then the input is not rounded to bytes
        for step in self.run(images.from_any(image, levels=not exact), chosen):
            if step.result is not None and alpha is not None:
                alpha = self.apply_alpha(alpha, chosen)
            yield (last := step.then(partial(images.to_kind_of, like=image, alpha=alpha)))
        return cast(Image, last.result)

    def apply(self, pixels: Tensor, options: Options | None = None, **changes: Any) -> Tensor:
        """Apply the network to a tensor (N, 3, H, W), in [0, 1] or uint8 levels. Returns the same type, on the CPU."""
        return finish(self.run(pixels, options, **changes))

    @torch.no_grad()
    def run(self, pixels: Tensor, options: Options | None = None, **changes: Any) -> Generator[Step, None, Tensor]:
        """The same as `apply`, as a generator of Steps: one after each tile or band. The last one has the result."""
        chosen, made, total, done = self.options(options, **changes), list[Tensor](), len(pixels), 0
        fresh = self.device.type != "cpu"  # on a CPU the result may be the image itself
        computed = pixels.float() if pixels.is_floating_point() else pixels  # the networks are in float32
        if computed.is_floating_point() and not computed.isfinite().all():
            raise ImageError("The image has values that are not finite (NaN or infinity): replace them first.")
        for pictures in torch.split(computed, self.together(pixels, chosen)):
            for step in self.picture(pictures, chosen):
                pieces = step.total or 1
                total = len(pixels) * pieces
                if step.result is None:
                    yield Step(done * pieces + step.index * len(pictures), total, message=step.message)
                else:
                    made.append(images.like(fetch(step.result), pixels).to(pixels.dtype))
            done += len(pictures)
        yield Step(total, total, result=(result := made[0] if fresh and len(made) == 1 else torch.cat(made)))
        return result

    def options(self, options: Options | None = None, **changes: Any) -> Options:
        """The options of a call: `options` or `defaults`, with `changes`. Raises the same errors as a call."""
        return cast(Options, changed(self.options_type, self.defaults if options is None else options, changes))

    def size(self, height: int, width: int, options: Options) -> tuple[int, int]:
        """Height and width of the result, for the height and width of an image in pixels."""
        return images.scaled_size(height, width, self.network.scale)

    def memory(self, height: int, width: int, options: Options) -> float:
        """Bytes of memory that the network needs for an 8-bit image of this size, without the image itself."""
        return tiles.plan(self.network, (height, width), cast(Any, options).tile, self.device)[1]

    def together(self, pixels: Tensor, options: Options) -> int:
        """How many images of a batch `picture` gets at once: one, because more are not faster and need more memory."""
        return 1

    def at_once(self, height: int, width: int, options: Options | None = None) -> int:
        """How many files, or frames of a video, to work on at the same time, each with one core of a CPU.

        Networks do little work between two points where all cores of a frame have to wait for each other. So small
        frames, of up to 1 megapixel, are faster side by side, as far as half of the free memory suffices.

        height, width: of each, in pixels. options: as in a call. The result is at least 1.
        """
        if self.device.type != "cpu" or height * width > SMALL or kernels_in_use() is None:
            return 1
        needed = self.memory(height, width, options or self.defaults)
        return max(1, min(torch.get_num_threads(), int(free_memory(self.device) / 2 / needed)))

    def picture(self, picture: Tensor, options: Options) -> Generator[Step, None, None]:
        """Apply the network to one image (1, 3, H, W), in [0, 1] or uint8 levels. The last Step has the result.

        Where the memory of a GPU runs out, the image is done again in smaller tiles, unless the options set their size.
        """
        given = cast(Any, options).tile
        side: int | None = tiles.tile_side(self.network, picture, given, self.device)
        while side is not None:
            try:
                yield from tiles.in_tiles(self.forward_for(picture, options), self.network, picture, side)
                return
            except torch.OutOfMemoryError:
                smaller = tiles.smaller_tile(self.network, picture, side) if given is None else None
            side = smaller  # the next try is outside of `except`, which keeps the memory of the failed one
        raise ImageError(tiles.NO_ROOM)

    def forward_for(self, picture: Tensor, options: Options) -> Callable[[Tensor], Tensor]:
        """The function that calls the network on each tile of a picture."""
        return self.forward

    def apply_alpha(self, alpha: Tensor, options: Options) -> Tensor:
        """The alpha channel of the result, (1, 1, h, w) in [0, 1], for that of the image. The caller resizes it."""
        return alpha

    def forward(self, x: Tensor, *style: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
        """Call the network on (N, 3, H, W), in [0, 1] or uint8 levels. The result is clamped to [0, 1].

        dtype: the type of convolutions, such as torch.float16; None for float32. A network that overflows in float16 is
        called again in float32.

        Raises:
            CheckpointError: the result has values that are not finite.
        """
        x = send(x, self.device)  # levels are converted on the device: they need a quarter of the transfer
        call: Function = partial(self._call, dtype=dtype)
        if self.device.type == "cuda":
            call = self._graphs.setdefault(dtype, Graphs(call))
        made, *bounds = call(x, *style)
        if all(bound.isfinite() for bound in bounds):
            return made
        if dtype is None:
            raise CheckpointError(DAMAGED)
        return self.forward(x, *style)

    def _call(self, x: Tensor, *style: Tensor | None, dtype: torch.dtype | None) -> tuple[Tensor, ...]:
        """The clamped result, and the smallest and largest value before that. Does not wait for a GPU."""
        x = images.unit(x).contiguous(memory_format=torch.channels_last)
        kept = nullcontext() if dtype is None else torch.autocast(self.device.type, dtype, cache_enabled=False)
        with kept:
            made: Tensor = self.network(x, *style)
        bounds = made.aminmax()  # one pass; `isfinite().all()` takes five
        return made.clamp_(0, 1), *bounds
