"""`Term`, the base class of losses: called on images, or by `PerceptualLoss` on features that terms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from perceptual.errors import ConfigError
from perceptual.losses.inputs import OUTPUTS, PICTURES, ValueCheck, check_style, check_target
from perceptual.losses.networks import Features, LossNetwork, LossNetworks, split_layer

PIXELS = "pixels"
Reduction = Literal["mean", "sum", "none"]
Paths = Mapping[str, str | Path]
Networks = Mapping[str, LossNetwork]


@dataclass(frozen=True)
class Materials:
    """Further inputs of terms, besides the output and the target image.

    scale: factor by which the network enlarges. grams: Gram matrices (styles, C, C) of the paintings by NETWORK:LAYER.
    convention: scaling of Gram matrices, a key of `STYLE_CONVENTIONS`. paths: weight files by name.
    """

    scale: int = 1
    grams: Mapping[str, Tensor] = field(default_factory=dict)
    convention: str = "paper"
    paths: Paths = field(default_factory=dict)


class Term(nn.Module):
    """Base class of losses. A term is used alone, or with others in a `PerceptualLoss`.

    Alone, it is called like a loss of PyTorch: `loss(output, target)`, for images (N, 3, H, W), RGB, float, [0, 1].
    A target of batch size 1 is compared with every output. A term that needs no target ignores it. Gradients flow to
    the output, and to the target if it requires them. The loss network is loaded at the first call, and moves with
    `.to(device)`. It is not in `parameters()` and not in `state_dict()`.

    Losses are computed in float32 for images in float16, bfloat16 and float32. For float64 they are float64, except
    that the features of loss networks are float32.

    A subclass overrides `compare`, which `PerceptualLoss` calls with features.

    Args:
        layers, target_layers: layers of the output and of the target that the term needs, as NETWORK:LAYER or "pixels".
        references: number of reference values, 1 or the number of styles.
        reduction: what a call gives: "mean" or "sum" of the losses of the N images, or "none": one loss per image,
            (N,). Each image's loss is already divided as its formula says. So "sum" is N times "mean".
        paths: weight files by network name, for networks that are not in the cache.
        networks: your own loss networks by name, see `LossNetwork.from_module`.

    Attributes: `reference`, a buffer (1,) or (styles,): relative weighting divides the term by it. It is 1 before
    `PerceptualLoss.calibrate`. A call of the term alone does not use it.

    Class attributes: `takes_layers`, True if an objective can name layers for the term (`losses.language`);
    `relative_weight`, a factor of its weight under relative weighting.

    Raises:
        ConfigError: an unknown reduction; when called, an unknown layer, or a missing target or one of another size.
        WeightsError: when called, the weights of the loss network are missing.
        TypeError: when called, an image is not a tensor of floats.
        ImageError: when called, an image has the wrong shape, is too small, or has values far outside [0, 1]:
            a target outside [-0.5, 1.5], or the first output outside [-16, 16].
    """

    takes_layers: ClassVar[bool] = False
    relative_weight: ClassVar[float] = 1.0
    reference: Tensor

    def __init__(
        self,
        layers: Sequence[str] = (),
        target_layers: Sequence[str] = (),
        *,
        references: int = 1,
        reduction: Reduction = "mean",
        paths: Paths | None = None,
        networks: Networks | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.target_layers = tuple(map(full_name, layers)), tuple(map(full_name, target_layers))
        self.reduction = check_reduction(reduction)
        self.register_buffer("reference", torch.ones(references))
        self.paths = {name: Path(file) for name, file in (paths or {}).items()}
        self.own_networks = dict(networks or {})
        self._loaded: list[LossNetworks] = []  # in a list, so that the state of the term is the same before and after
        self._values = ValueCheck()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to another device, but its buffers stay in float32: in float16, Gram matrices would be infinite."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self

    def extra_repr(self) -> str:
        """What `print(loss)` shows between the brackets: the layers of loss networks, and the reduction."""
        return ", ".join([*(layer for layer in self.layers if layer != PIXELS), f"reduction={self.reduction}"])

    @classmethod
    def build(cls, layer: str | None, materials: Materials) -> Self:
        """The term for one layer of an objective; None means the term's own default."""
        return cls(layer) if layer else cls()

    @classmethod
    def needs(cls, layer: str | None) -> tuple[str, ...]:
        """The layers of loss networks that `build` with this layer compares, as NETWORK:LAYER.

        For a term of one layer that is the layer itself, vgg16:relu2_2 where it is None.
        """
        return (full_name(layer or "vgg16:relu2_2"),) if cls.takes_layers else ()

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        """One loss per image, (N,), from features.

        output, target: {NETWORK:LAYER or "pixels": (N, C, h, w)} with the layers that the term needs. style: weights
            (N, styles) of the styles; None for the first style.
        """
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        self._values(output, "output", OUTPUTS)
        check_style(style, len(output), len(self.reference))
        goal: Features = {}
        if self.target_layers:
            target = check_target(output, target)
            self._values(target, "target", PICTURES)
            goal = self._features(target, self.target_layers)
        losses = self.compare(self._features(output, self.layers), goal, style)
        return reduce(losses, self.reduction)

    def load(self) -> Self:
        """Load the loss network now, and not at the first call. Returns the term.

        Raises:
            ConfigError, WeightsError: as a call.
        """
        self._own_networks()
        return self

    def _own_networks(self) -> LossNetworks | None:
        """The loss networks of this term alone, on its device."""
        deep = [layer for layer in dict.fromkeys((*self.layers, *self.target_layers)) if layer != PIXELS]
        if not self._loaded and deep:
            self._loaded.append(LossNetworks(deep, paths=self.paths, networks=self.own_networks))
        for networks in self._loaded:
            if next(networks.buffers()).device != self.reference.device:
                with torch.inference_mode(False):  # else its weights could not be used for gradients later
                    networks.to(self.reference.device)
            return networks
        return None

    def _features(self, image: Tensor, layers: Sequence[str]) -> Features:
        return features_of(self._own_networks(), image, layers)

    def measure(self, photographs: Features) -> Tensor:
        """The reference value for relative weighting, from the features of a batch of photos: (1,) or (styles,).

        By default it is the mean loss between each photo and the next one in the batch.
        """
        others = {name: value.roll(1, 0) for name, value in photographs.items()}
        return self.compare(photographs, others, None).mean(0, keepdim=True)


class ModuleLoss(Term):
    """Any module that takes (output, target) as a term: of piq, of torchmetrics, or your own.

    `PerceptualLoss` wraps modules by itself: `PerceptualLoss({"gmsd": (piq.GMSDLoss(), 0.5)})`. The module gets images
    (N, 3, H, W), RGB, in [0, 1] where the output of your network is. It gives one loss for the batch, or one per image:
    a scalar, (N,), or N values in another shape. A loss is small for good images: give a score that is large for good
    images, such as SSIM itself, a negative weight.

    A metric of torchmetrics keeps the values of all calls, and is therefore reset after each call.

    module: the module. reduction: see `Term`.

    Raises:
        TypeError: not a module. ConfigError: when called, it does not give 1 or N numbers.
    """

    def __init__(self, module: nn.Module, *, reduction: Reduction = "mean") -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"A {type(module).__name__} is no module: give an nn.Module that takes (output, target).")
        super().__init__((PIXELS,), (PIXELS,), reduction=reduction)
        self.module = module

    def compare(self, output: Features, target: Features, style: Tensor | None = None) -> Tensor:
        image = output[PIXELS]
        value = self.module(image, target[PIXELS].expand_as(image))
        if not isinstance(value, Tensor) or value.numel() not in (1, len(image)):
            shape = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
            raise ConfigError(f"The module {type(self.module).__name__} gives a result of {shape}: a loss must be one "
                              f"number, or one for each of the {len(image)} images.")  # fmt: skip
        if all(hasattr(self.module, name) for name in ("update", "compute", "reset")):
            self.module.reset()  # type: ignore[operator]
        return value.reshape(-1).expand(len(image))


def features_of(networks: LossNetworks | None, image: Tensor, layers: Sequence[str]) -> Features:
    """The features of images (N, 3, H, W) as {layer: (N, C, h, w)}; "pixels" is the image itself."""
    deep = [layer for layer in layers if layer != PIXELS]
    found = networks(image, deep) if deep and networks is not None else {}
    return {**found, PIXELS: image}


def check_reduction(reduction: Reduction) -> Reduction:
    """The reduction itself; a ConfigError if there is no such reduction."""
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"reduction is {reduction!r}; choose mean, sum or none.")
    return reduction


def reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    """The mean or the sum of losses (N,), or the losses themselves for "none"."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def full_name(layer: str) -> str:
    """Add the paper's loss network to a layer without one: "relu3_3" -> "vgg16:relu3_3". Other names are unchanged."""
    return layer if layer == PIXELS else ":".join(split_layer(layer))
