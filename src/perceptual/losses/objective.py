"""`PerceptualLoss`, a weighted sum of named terms, and the objectives of the paper.

A term compares features of the output and of the target by layer name; "pixels" is the image itself. PerceptualLoss
runs each loss network once on the output and once on the target, only up to the deepest layer that is needed.

**Relative weights.** The raw value of a term depends on the layer, the loss network, the style image and the pixel
range. The values differ by many powers of ten, so weights cannot be copied from one setting to another.
`PerceptualLoss.calibrate` therefore measures a reference value for each term (for style terms: for each style) on some
photos before training:

    content and pixel terms   the mean distance between each photo and the next, unrelated photo
    style terms               the mean distance of the photos from the style (the loss at y = y_c)
    total variation           the mean total variation of the photos

The weighted total divides each term by its reference. A content loss of 1 then means "as far from the photo as another
photo", and a style loss of 1 means "as far from the style as the photo", for every network and painting. The style
weight is multiplied by 5 (`StyleLoss.relative_weight`), so that 1 is a good start; a smaller weight gives less style, a
larger one more.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptual.config import LossConfig
from perceptual.errors import ConfigError
from perceptual.functional import mix
from perceptual.losses.base import (
    PIXELS,
    Materials,
    ModuleLoss,
    Reduction,
    Term,
    check_reduction,
    features_of,
    reduce,
)
from perceptual.losses.inputs import OUTPUTS, PICTURES, ValueCheck, check_image, check_number, check_style, check_target
from perceptual.losses.language import TermSpec, build_terms, check_weights, layers_of, objective_of, parse_objective
from perceptual.losses.networks import Features, LossNetwork, LossNetworks
from perceptual.losses.terms import StyleLoss


class PerceptualLoss(nn.Module):
    """A weighted sum of named terms.

    Args:
        terms: {name: (term, weight)}. A term is a `Term`, or any module that takes (output, target), which `ModuleLoss`
            wraps. The name "total" is reserved. The `reduction` of the terms is not used.
        networks: your own loss networks by name, made by `LossNetwork.from_module`, or the LossNetworks of all layers
            of the terms. By default they are created, also with the `networks` of the terms.
        paths: weight files by network name, for networks that are not in the cache; also those of the terms are used.
        relative: divide the terms by their references. Call `calibrate` or `set_references` before the first use.
        reduction: "mean" or "sum" of the N images, or "none": each value is (N,), one for each image.

    Losses are float32 for images in float16, bfloat16 and float32. For float64 they are float64, except that the
    features of loss networks are float32. An ImageError is raised if a target has values outside [-0.5, 1.5] or the
    first output has values outside [-16, 16]. On a GPU only the first images are checked, because the check has to wait
    for the GPU.

    `state_dict()` holds the references and the Gram matrices of styles, but no loss networks: those have their files.

    Raises:
        ConfigError: there are no terms, or a name or a weight is invalid. TypeError: `terms` is not a dict of pairs of
            term and weight.
    """

    def __init__(
        self,
        terms: Mapping[str, tuple[nn.Module, float]],
        *,
        networks: LossNetworks | Mapping[str, LossNetwork] | None = None,
        paths: Mapping[str, str | Path] | None = None,
        relative: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.calibrated, self.reduction = not relative, check_reduction(reduction)
        if not terms:
            raise ConfigError("A PerceptualLoss needs at least one term.")
        if not isinstance(terms, Mapping):
            raise TypeError(f"The terms are a {type(terms).__name__}: give a dict such as {{name: (term, weight)}}.")
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        self._keys: dict[str, str] = {}
        self._check = ValueCheck()
        for name, pair in terms.items():
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"The term {name!r} is given as {type(pair).__name__}: give (term, weight).")
            self._put(name, *pair)
        self.layers = self._layers("layers")
        self.target_layers = self._layers("target_layers")
        deep = [layer for layer in (*self.layers, *self.target_layers) if layer != PIXELS]
        if networks is None or isinstance(networks, Mapping):
            files, own = self._shared("paths", paths), self._shared("own_networks", networks)
            networks = LossNetworks(deep, paths=files, networks=own) if deep else None
        elif isinstance(networks, LossNetworks) and (missing := set(deep).difference(networks.layers)):
            raise ConfigError(f"The networks do not give {min(missing)}, which a term needs: add this layer.")
        self.networks = networks

    def named_terms(self) -> list[tuple[str, Term]]:
        """(name, term) of all terms, in the given order."""
        terms = [(name, self.terms[key]) for name, key in self._keys.items()]
        return [(name, term) for name, term in terms if isinstance(term, Term)]

    def _put(self, name: str, term: object, weight: float) -> None:
        if not isinstance(name, str) or not isinstance(term, nn.Module):
            raise TypeError(
                f"The term {name!r} is a {type(term).__name__}: give a name and a Term, such as PixelLoss(), or a "
                "module that takes (output, target)."
            )
        term = term if isinstance(term, Term) else ModuleLoss(term)
        if name == "total" or name in self._keys:
            raise ConfigError(f'The name "{name}" is taken: give the term another name.')
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise ConfigError(f"The weight of {name!r} is {weight!r}: give a finite number.")
        key = name.replace(".", "_")  # PyTorch does not allow some module names: with a dot, "", "pop", "keys"
        while not key or hasattr(self.terms, key):
            key += "_"
        self.terms[key], self.weights[name], self._keys[name] = term, float(weight), key

    def _shared(self, which: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """The `paths` or `own_networks` of all terms, by name. Those in `given` go first."""
        found = dict(given or {})
        for name, term in self.named_terms():
            for network, value in getattr(term, which).items():
                if found.setdefault(network, value) != value and network not in (given or {}):
                    raise ConfigError(f"{name!r} and a term before it have different files or networks called "
                                      f"{network!r}: give one of them to PerceptualLoss.")  # fmt: skip
        return found

    def _layers(self, which: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, term in self.named_terms() for layer in getattr(term, which)))

    def features(self, image: Tensor, layers: Sequence[str]) -> Features:
        """The features of images (N, 3, H, W), RGB [0, 1], as {layer: (N, C, h, w)}; "pixels" is the image itself."""
        check_image(image)
        return features_of(self.networks, image, layers)

    def goal(self, target: Tensor) -> Features:
        """The features of a target (N, 3, H, W), RGB [0, 1], that the terms need. Keep them to reuse one target."""
        self._check(target, "target", PICTURES)
        with torch.inference_mode(False), torch.no_grad():  # training cannot use tensors of the inference mode
            target = target.clone() if target.is_inference() else target.detach()
            return self.features(target, self.target_layers)

    def forward(
        self,
        output: Tensor,
        target: Tensor | Features | None = None,
        style: Tensor | None = None,
        *,
        beside: Features | None = None,
    ) -> dict[str, Tensor]:
        """Compute all terms.

        output: (N, 3, H, W), RGB [0, 1]. target: the same, or the result of `goal`; None if no term needs a target.
        style: (N, styles), weights of the styles; None for the first style. beside: further inputs of terms by name,
            see TemporalLoss.

        Returns {name: value} with the unweighted mean over the batch for every term, and "total", the weighted sum; see
        `reduction`. Gradients flow to `output`, and to a target image that requires them.

        Raises:
            ConfigError: the target or the style does not fit the output, or `calibrate` was not called.
            TypeError: an image is not a tensor of floats.
            ImageError: an image has the wrong shape, is too small, or has values far outside [0, 1].
        """
        if not self.calibrated:
            raise ConfigError("Relative weights need reference values: call calibrate(photographs) first.")
        self._check(output, "output", OUTPUTS)
        check_style(style, len(output), max([len(term.reference) for _, term in self.named_terms()]))
        goal = self._goal_for(output, target)
        seen = {**self.features(output, self.layers), **(beside or {})}
        for layer in goal if isinstance(target, dict) else ():
            if layer in seen and seen[layer].shape[-2:] != goal[layer].shape[-2:]:
                raise ConfigError("The target was made from an image of another size: make it anew by `goal`.")
        values: dict[str, Tensor] = {}
        total = output.new_zeros((), dtype=torch.float32)
        for name, term in self.named_terms():
            value = term.compare(seen, goal, style)
            reference = term.reference[:1] if style is None or len(term.reference) == 1 else mix(style, term.reference)
            values[name] = reduce(value, self.reduction)
            total = total + self.weights[name] * reduce(value / reference, self.reduction)
        return {**values, "total": total}

    def _goal_for(self, output: Tensor, target: Tensor | Features | None) -> Features:
        """The features of the target. It is an image, or already the result of `goal`."""
        if isinstance(target, dict):
            if missing := [layer for layer in self.target_layers if layer not in target]:
                raise ConfigError(f"The target lacks {missing[0]}: give an image, or the result of this loss's `goal`.")
            for layer in self.target_layers:
                check_number(len(target[layer]), len(output))
            return target
        if not self.target_layers:
            return {}
        image = check_target(output, target)
        self._check(image, "target", PICTURES)
        return self.features(image, self.target_layers)

    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> Any:
        """The references and the targets of the terms; loss networks are not stored."""
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        for key in [key for key in state if key.startswith(f"{prefix}networks.")]:
            del state[key]
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.networks is not None:
            state_dict.update(self.networks.state_dict(prefix=f"{prefix}networks."))
        references = [state_dict.get(f"{prefix}terms.{key}.reference") for key in self._keys.values()]
        self.calibrated |= any(value is not None and bool((value != 1).any()) for value in references)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def calibrate(self, photographs: Iterable[Tensor]) -> dict[str, list[float]]:
        """Measure the reference value of every term on batches of photos; returns them by name of the term.

        photographs: batches (N, 3, H, W), RGB [0, 1], N >= 2.

        Raises:
            ConfigError: a batch has fewer than 2 photos, or there are no photos.
        """
        sums: dict[str, Tensor] = {}
        photographs_seen = 0
        for batch in photographs:
            self._check(batch, "batch of photographs", PICTURES)
            if len(batch) < 2:
                raise ConfigError("Relative weights need batches of at least 2 photos: give a larger batch.")
            seen = self.features(batch, tuple({*self.layers, *self.target_layers}))
            for name, term in self.named_terms():
                value = len(batch) * term.measure(seen)
                sums[name] = sums[name] + value if name in sums else value
            photographs_seen += len(batch)
        if not photographs_seen:
            raise ConfigError("Relative weights need photos to measure reference values: give at least one batch.")
        self.set_references({name: (value / photographs_seen).tolist() for name, value in sums.items()})
        return self.references()

    def references(self) -> dict[str, list[float]]:
        """The reference values by name of the term, for the card."""
        return {name: term.reference.tolist() for name, term in self.named_terms()}

    def set_references(self, references: Mapping[str, Sequence[float]]) -> None:
        """Set the reference values from the result of `references`. Values of 0, as for a constant image, become 1.

        Raises:
            ConfigError: the number of values of a term is wrong, or a value is not finite.
        """
        for name, term in self.named_terms():
            value = torch.tensor(references.get(name, ())).to(term.reference)
            if value.shape != term.reference.shape or not value.isfinite().all():
                raise ConfigError(f"The reference of {name!r} must be {len(term.reference)} finite number(s).")
            term.reference = torch.where(value > 0, value, torch.ones_like(value))
        self.calibrated = True


def style_transfer_loss(
    config: LossConfig,
    styles: Sequence[Tensor | Features],
    *,
    paths: Mapping[str, str | Path] | None = None,
    device: torch.device | str = "cpu",
    more: Sequence[TermSpec] = (),
    own_networks: Mapping[str, LossNetwork] | None = None,
) -> PerceptualLoss:
    """The objective of style transfer (paper, eq. 5) for one or several style images.

    config: layers and weights. styles: images (1, 3, h, w), RGB [0, 1], of any size, or results of `style_targets` with
        the same scale of Gram matrices. paths: weight files by network name. device: where the loss is computed.
        more: terms in addition to those of `config`. own_networks: your own loss networks by name.

    Raises:
        ConfigError: there is no style, a style lacks the Gram matrix of a layer, or all weights are 0.
        WeightsError: the weights of a loss network are missing.
        TypeError, ImageError: a style image is not a tensor (1, 3, h, w) of floats in [0, 1].
    """
    specs = (*objective_of(config), *more)
    check_weights(specs)
    compared = layers_of(specs, "style")
    if compared and not styles:
        raise ConfigError("Style transfer needs a style: give at least one style image.")
    networks = LossNetworks(layers_of(specs), paths=paths, networks=own_networks).to(device)
    targets = [s if isinstance(s, dict) else style_targets(config, s.to(device), networks) for s in styles]
    shared = [layer for layer in compared if all(layer in target for target in targets)]
    grams = {layer: torch.cat([target[layer] for target in targets]) for layer in shared}
    relative = config.weighting == "relative"
    materials = Materials(grams=grams, convention=config.style_convention, paths=paths or {})
    terms = build_terms(specs, materials, relative=relative)
    return PerceptualLoss(terms, networks=networks, relative=relative).to(device)


def reconstruction_loss(
    objective: str | Mapping[str, float],
    scale: int,
    *,
    paths: Mapping[str, str | Path] | None = None,
    own_networks: Mapping[str, LossNetwork] | None = None,
) -> PerceptualLoss:
    """The objective of super-resolution (paper, section 4.2): a weighted sum of distances from the original image.

    objective: such as "feature=1,l1=0.5" (`losses.language`), or {name: weight}. scale: factor by which the network
        enlarges. paths: weight files by network name. own_networks: your own loss networks by name.

    Raises:
        ConfigError: a name is unknown. WeightsError: the weights of a loss network are missing.
    """
    if not isinstance(objective, str):
        objective = ",".join(f"{name}={weight}" for name, weight in objective.items())
    terms = build_terms(parse_objective(objective), Materials(scale=scale, paths=paths or {}))
    return PerceptualLoss(terms, networks=own_networks, paths=paths)


@torch.no_grad()
def style_targets(config: LossConfig, style: Tensor, networks: LossNetworks) -> Features:
    """The Gram matrices of a style image (1, 3, h, w), RGB [0, 1], as {NETWORK:LAYER: (1, C, C)} (paper, eq. 3).

    config: its style layers and the scale of the Gram matrices. networks: loss networks with these layers.

    Raises:
        TypeError: not a tensor of floats. ImageError: wrong shape, or values far outside [0, 1].
    """
    check_image(style, "style image", PICTURES)
    features = networks(style, layers_of(objective_of(config), "style"))
    return {layer: StyleLoss.gram(value, config.style_convention) for layer, value in features.items()}
