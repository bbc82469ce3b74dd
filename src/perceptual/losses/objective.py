"""PerceptualLoss, which adds terms up and names each, and the objectives of the paper.

A term looks at the features of the output and of the target by name; "pixels" is the image itself. PerceptualLoss runs
each loss network once over the output and once, no deeper than needed, over the target.

**Relative weights.** The raw size of a term depends on the layer, the loss network, the style image and the pixel
range, by many powers of ten, which is why weights copied from elsewhere fail. `PerceptualLoss.calibrate` measures one
reference value per term (per style for style terms) on some photographs, before training:

    content and pixel terms   the mean distance between one photograph and the next, an unrelated one
    style terms               the mean distance of the photographs themselves from the style (the loss at y = y_c)
    total variation           the mean total variation of the photographs themselves

The weighted total divides each term by its reference: content 1 then means "as far from the photograph as another
photograph is", style 1 "as far from the style as the photograph is", whatever the network and the painting. A style
weight of 1 counts 5 times (`StyleLoss.relative_weight`), which makes 1 a plain
choice; less is gentler, more is stronger.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from perceptual.config import LossConfig
from perceptual.errors import ConfigError
from perceptual.functional import mix
from perceptual.losses.language import TermSpec, build_terms, layers_of, objective_of, parse_objective
from perceptual.losses.networks import Features, LossNetworks, check_image
from perceptual.losses.terms import (
    PIXELS,
    Materials,
    StyleLoss,
    Term,
)

PICTURES = (-1.0, 2.0)  # limits of the values of pictures; bicubic interpolation may leave [0, 1] a little
OUTPUTS = (-16.0, 16.0)  # limits of the output of a network that is not trained yet


class PerceptualLoss(nn.Module):
    """A weighted sum of named terms.

    Args:
        terms: {name: (term, weight)}; any names but "total".
        networks: the loss networks that the terms' layers name; made from these layers when left out.
        paths: weight files by network name, for those that are not in the cache.
        relative: the terms are to be divided by references, so `calibrate` or `set_references` must come first.

    Images in float16, bfloat16 and float32 give losses in float32; float64 keeps float64 but for the features of loss
    networks, which are float32. Values of a target outside [-1, 2] are refused, and those of the first output outside
    [-16, 16]. On a GPU only the first images are looked at, because looking waits for the GPU.

    Raises:
        ConfigError: no terms, or a name or weight that cannot be. TypeError: not a term with its weight.
    """

    def __init__(
        self,
        terms: Mapping[str, tuple[Term, float]],
        *,
        networks: LossNetworks | None = None,
        paths: Mapping[str, str | Path] | None = None,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.calibrated = not relative
        if not terms:
            raise ConfigError("A PerceptualLoss needs at least one term.")
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        self._keys: dict[str, str] = {}
        self._looked_at: set[str] = set()
        for name, pair in terms.items():
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"The term {name!r} is given as {type(pair).__name__}: give (term, weight).")
            self._put(name, *pair)
        self.layers = self._layers("layers")
        self.target_layers = self._layers("target_layers")
        deep = [layer for layer in (*self.layers, *self.target_layers) if layer != PIXELS]
        self.networks = networks or (LossNetworks(deep, paths=paths) if deep else None)

    def named_terms(self) -> list[tuple[str, Term]]:
        """(name, term) in the order given."""
        terms = [(name, self.terms[key]) for name, key in self._keys.items()]
        return [(name, term) for name, term in terms if isinstance(term, Term)]

    def _put(self, name: str, term: Term, weight: float) -> None:
        if not isinstance(name, str) or not isinstance(term, Term):
            raise TypeError(
                f"The term {name!r} is a {type(term).__name__}: give a name and a Term, such as PixelLoss()."
            )
        if name == "total" or name in self._keys:
            raise ConfigError(f'No term may be called "{name}": the name is taken.')
        if not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ConfigError(f"The weight of {name!r} is {weight!r}: give a finite number.")
        key = name.replace(".", "_")  # PyTorch refuses some names of modules: with a dot, "", "pop", "keys"
        while not key or hasattr(self.terms, key):
            key += "_"
        self.terms[key], self.weights[name], self._keys[name] = term, weight, key

    def _layers(self, which: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, term in self.named_terms() for layer in getattr(term, which)))

    def _check(self, image: Tensor, name: str, limits: tuple[float, float]) -> None:
        """As `check_image`; the values of outputs, and of all images on a GPU, only for the first."""
        check_image(image, name)
        if torch.compiler.is_compiling():
            return
        if name not in self._looked_at or (name != "output" and image.device.type == "cpu"):
            check_image(image, name, limits)
            self._looked_at.add(name)

    def features(self, image: Tensor, layers: Sequence[str]) -> Features:
        """{layer: features} of an image (N, 3, H, W), RGB [0, 1]; "pixels" is the image itself."""
        check_image(image)
        deep = [layer for layer in layers if layer != PIXELS]
        found = self.networks(image, deep) if deep and self.networks is not None else {}
        return {**found, PIXELS: image}

    @torch.no_grad()
    def goal(self, target: Tensor) -> Features:
        """What the terms compare with, of a target (N, 3, H, W) RGB [0, 1]: to be kept when it stays the same."""
        self._check(target, "target", PICTURES)
        return self.features(target.detach(), self.target_layers)

    def forward(
        self,
        output: Tensor,
        target: Tensor | Features | None = None,
        style: Tensor | None = None,
        *,
        beside: Features | None = None,
    ) -> dict[str, Tensor]:
        """output, target: (N, 3, H, W) RGB [0, 1], or what `goal` gave for the target; style: (N, styles) weights, None
        for the first style; beside: what terms look at beside the output's features, such as TemporalLoss.

        Returns {name: mean over the batch, unweighted} for every term, and "total", the weighted sum; each a scalar
        tensor through which gradients flow to `output`.

        Raises:
            ConfigError: the target or the style does not fit, or `calibrate` has to come first.
            TypeError: an image that is no tensor of floats. ImageError: of another shape, too small, or
                with values far outside [0, 1].
        """
        if not self.calibrated:
            raise ConfigError("Relative weights need their references: call calibrate(photographs) first.")
        self._check(output, "output", OUTPUTS)
        self._check_style(style, len(output))
        goal = self._goal_for(output, target)
        seen = {**self.features(output, self.layers), **(beside or {})}
        values: dict[str, Tensor] = {}
        total = output.new_zeros((), dtype=torch.float32)
        for name, term in self.named_terms():
            value = term(seen, goal, style)
            reference = term.reference[:1] if style is None or len(term.reference) == 1 else mix(style, term.reference)
            values[name] = value.mean()
            total = total + self.weights[name] * (value / reference).mean()
        return {**values, "total": total}

    def _goal_for(self, output: Tensor, target: Tensor | Features | None) -> Features:
        """What `goal` gives for the target, or the target where it is such already."""
        if isinstance(target, dict):
            if missing := [layer for layer in self.target_layers if layer not in target]:
                raise ConfigError(f"The target lacks {missing[0]}: give an image, or what `goal` of this loss returns.")
            return target
        if not self.target_layers:
            return {}
        if target is not None:
            self._check(target, "target", PICTURES)
        if target is None or target.shape[-2:] != output.shape[-2:]:
            raise ConfigError("The losses compare with a target: give one of the same height and width as the output.")
        if len(target) not in (1, len(output)):
            raise ConfigError(f"{len(target)} targets do not fit {len(output)} outputs: give one, or one for each.")
        return self.goal(target)

    def _check_style(self, style: Tensor | None, count: int) -> None:
        styles = max(len(term.reference) for _, term in self.named_terms())
        if style is not None and tuple(style.shape) not in ((count, styles), (1, styles)):
            raise ConfigError(f"The style weights have the shape {tuple(style.shape)}: give ({count}, {styles}), a row "
                              "for each output and a number for each style.")  # fmt: skip

    @torch.no_grad()
    def calibrate(self, photographs: Iterable[Tensor]) -> dict[str, list[float]]:
        """Measure every term's reference (see above) on batches of at least 2 photographs; returns them by name."""
        sums: dict[str, Tensor] = {}
        photographs_seen = 0
        for batch in photographs:
            self._check(batch, "batch of photographs", PICTURES)
            if len(batch) < 2:
                raise ConfigError("Relative weights are measured on batches of at least 2 photographs.")
            seen = self.features(batch, tuple({*self.layers, *self.target_layers}))
            for name, term in self.named_terms():
                value = len(batch) * term.measure(seen)
                sums[name] = sums[name] + value if name in sums else value
            photographs_seen += len(batch)
        if not photographs_seen:
            raise ConfigError("Relative weights need photographs to measure their references on.")
        self.set_references({name: (value / photographs_seen).tolist() for name, value in sums.items()})
        return self.references()

    def references(self) -> dict[str, list[float]]:
        """The reference values by term, for the card."""
        return {name: term.reference.tolist() for name, term in self.named_terms()}

    def set_references(self, references: Mapping[str, Sequence[float]]) -> None:
        """Put back values that `references` gave; zeros (a constant image) count as 1."""
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
) -> PerceptualLoss:
    """The objective of style transfer (paper, eq. 5) for one or several style images.

    styles: each (1, 3, h, w) RGB [0, 1], of any size; their sizes need not be that of the images compared. Or what
        `style_targets` made of such an image, under a convention that scales Gram matrices alike.
    more: terms beside those of `config`.

    Raises:
        ConfigError: no style, or one without the matrices of a layer. WeightsError: weights of a loss network are
            missing. TypeError, ImageError: a style image that is no tensor (1, 3, h, w) of floats in [0, 1].
    """
    specs = (*objective_of(config), *more)
    compared = layers_of(specs, "style")
    if compared and not styles:
        raise ConfigError("Style transfer needs a style: give at least one style image.")
    networks = LossNetworks(layers_of(specs), paths=paths).to(device)
    targets = [s if isinstance(s, dict) else style_targets(config, s.to(device), networks) for s in styles]
    shared = [layer for layer in compared if all(layer in target for target in targets)]
    grams = {layer: torch.cat([target[layer] for target in targets]) for layer in shared}
    relative = config.weighting == "relative"
    terms = build_terms(specs, Materials(grams=grams, convention=config.style_convention), relative=relative)
    return PerceptualLoss(terms, networks=networks, relative=relative).to(device)


def reconstruction_loss(
    objective: str | Mapping[str, float], scale: int, *, paths: Mapping[str, str | Path] | None = None
) -> PerceptualLoss:
    """The objective of super-resolution (paper, section 4.2): a weighted sum of distances from the original picture.

    objective: such as "feature=1,l1=0.5" (`losses.language`), or weights by name. scale: how many times the network
    enlarges. paths: weight files of loss networks.

    Raises:
        ConfigError: an unknown name. WeightsError: weights of a loss network are missing.
    """
    if not isinstance(objective, str):
        objective = ",".join(f"{name}={weight}" for name, weight in objective.items())
    return PerceptualLoss(build_terms(parse_objective(objective), Materials(scale=scale)), paths=paths)


@torch.no_grad()
def style_targets(config: LossConfig, style: Tensor, networks: LossNetworks) -> Features:
    """The Gram matrices (1, C, C) of a style image (1, 3, h, w) by style layer, as NETWORK:LAYER.

    Raises:
        TypeError: no tensor of floats. ImageError: of another shape, or with values far outside [0, 1].
    """
    check_image(style, "style image", PICTURES)
    features = networks(style, layers_of(objective_of(config), "style"))
    return {layer: StyleLoss.gram(value, config.style_convention) for layer, value in features.items()}
