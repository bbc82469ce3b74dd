"""Super-resolution networks of other programs, with what `Upscaler` needs to tile them and to bound their memory."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError
from perceptual.foreign import module_of
from perceptual.functional import padded_side
from perceptual.networks import TransformationNetwork

EXACT = 64
"""A network that reaches at most so many pixels is tiled with margins of its reach: the tiles equal the whole picture.
A margin of ESRGAN's reach, about 350 px, would be most of the work."""
OVERLAP = 64
"""Margin in pixels of the tiles of other networks. Its inner half is cross-faded with the next tile."""
PROBE = 16
"""Side in pixels of the picture that the memory is measured on."""
SCALES = range(1, 17)


class ForeignNetwork(TransformationNetwork):
    """A network of another program in the place of a TransformationNetwork. It cannot be saved or trained.

    body: a module, (N, 3, H, W) in [0, 1] -> (N, 3, scale * H, scale * W). traits: its properties.
    """

    def __init__(self, body: nn.Module, traits: Traits) -> None:
        nn.Module.__init__(self)
        # The layers are those of `body`. The words below say only that it is no network of ours with norms or noise.
        self.config = NetworkConfig(f"s{traits.scale}-3", norm="none", padding="replicate", output="linear")
        self.body, self.scale, self.grow = body, traits.scale, traits.scale
        self.styles, self.luma, self.start_pad, self.padding = 1, False, 0, "replicate"
        self.multiple, self.minimum = traits.multiple, traits.minimum
        exact = traits.reach is not None and traits.reach <= EXACT
        self.reach, self.overlap = (traits.reach, 0) if exact else (None, OVERLAP if traits.tileable else 0)
        self.name, self.tags = traits.name, tuple(traits.tags)
        self._floats = self._measured()

    def memory(self, height: int, width: int) -> int:
        """Estimated peak memory in bytes for one image of this size in pixels, for inference in float32."""
        rows, columns = (padded_side(side, self.multiple, self.minimum) for side in (height, width))
        return int(4 * (self._floats + 6 * self.scale**2) * rows * columns)

    def forward(self, x: Tensor, style: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Enlarge images x, (N, 3, H, W), RGB [0, 1]: (N, 3, scale * H, scale * W). The other arguments are ignored."""
        height, width = x.shape[-2:]
        missing = [padded_side(side, self.multiple, self.minimum) - side for side in (height, width)]
        if any(missing):
            mirrors = missing[0] < height and missing[1] < width
            x = F.pad(x, (0, missing[1], 0, missing[0]), mode="reflect" if mirrors else "replicate")
        out: Tensor = self.body(x)
        return out[..., : self.scale * height, : self.scale * width]

    @torch.no_grad()
    def _measured(self) -> float:
        """The most float32 numbers in memory at one time for one pixel of the input, and a quarter to spare."""
        side = padded_side(PROBE, self.multiple, self.minimum)
        with _Peak() as peak:
            out = self(torch.zeros(1, 3, side, side))
        if out.shape != (1, 3, self.scale * side, self.scale * side):
            raise CheckpointError(
                f"It makes pictures of shape {tuple(out.shape)}, which is not its scale {self.scale}."
            )
        return 1.25 * float(peak.numbers) / side**2


@dataclass(frozen=True)
class Traits:
    """Properties of a network of another program.

    name: of the architecture. scale: output size over input size. multiple, minimum: of the sides of the input, in
        pixels. reach: how many pixels of the input around a pixel change the output there; None if unknown or all.
        tags: its size and kind, in words. tileable: False if tiles would differ visibly.
    """

    name: str
    scale: int
    multiple: int = 1
    minimum: int = 1
    reach: int | None = None
    tags: Sequence[str] = ()
    tileable: bool = True


class _Peak(TorchFunctionMode):
    """Counts the numbers in the tensors that exist at one time, parameters left out.

    The inputs and outputs of an operation count twice: convolutions on a CPU copy them into another memory order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = self._now = 0
        self._holders: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given, new = _tensors(args), _tensors((made,))
        for tensor in new:
            self._hold(tensor)
        working = {id(each): each.numel() for each in (*given, *new)}
        self.numbers = max(self.numbers, self._now + sum(working.values()))
        return made

    def _hold(self, tensor: Tensor) -> None:
        place, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes() // 4
        self._holders[place] = self._holders.get(place, 0) + 1
        if self._holders[place] == 1:
            self._now += size
        weakref.finalize(tensor, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            self._now -= size


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among some values and in lists among them, parameters left out."""
    flat = [each for group in values for each in (group if isinstance(group, (list, tuple)) else (group,))]
    return [each for each in flat if isinstance(each, Tensor) and not isinstance(each, nn.Parameter)]


def upscaler_of(state: Mapping[str, Tensor]) -> ForeignNetwork:
    """The network for the tensors of a file. ESRGAN, Compact and SPAN are read here, and the others by spandrel.

    Raises:
        CheckpointError: no network has these tensors, or spandrel is needed and is not installed.
    """
    try:
        module, reason = module_of(state), "It is a network that perceptual does not know"
    except ValueError as error:
        module, reason = None, str(error)
    if module is None:
        return _by_spandrel(state, reason)
    least = module.multiple
    traits = Traits(module.name, module.scale, multiple=least, minimum=least, reach=module.reach, tags=module.tags)
    return ForeignNetwork(module, traits)


def _by_spandrel(state: Mapping[str, Tensor], reason: str) -> ForeignNetwork:
    """The network as spandrel builds it. spandrel gets tensors only; it opens no file."""
    try:
        import spandrel
    except ImportError as error:
        raise CheckpointError(f"{reason}. spandrel knows more: pip install 'perceptual[models]'.") from error
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise CheckpointError(f"{reason}, and spandrel does not know it either.") from error
    except (KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
        raise CheckpointError(f"{reason}, and spandrel cannot build it: the file may be damaged.") from error
    if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise CheckpointError(f"It is a network for {found.purpose} that does not make RGB from RGB.")
    needs, name = found.size_requirements, found.architecture.name
    if found.scale not in SCALES or needs.square:
        raise CheckpointError(f"It is {name} for scale {found.scale}, which perceptual cannot use.")
    multiple, minimum = max(1, needs.multiple_of), max(1, needs.minimum)
    tileable = found.tiling != spandrel.ModelTiling.INTERNAL  # such a network cuts tiles by itself
    traits = Traits(name, found.scale, multiple=multiple, minimum=minimum, tags=found.tags, tileable=tileable)
    return ForeignNetwork(_Described(found), traits)


class _Described(nn.Module):
    """A model of spandrel as a module."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model = descriptor.model.float().eval().requires_grad_(False)
        self._call = descriptor._call_fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._call(self.model, x)
        return out
