"""Objectives in one line of text, the same for every task and command.

    content@vgg16:relu2_2=1,style@vgg16:relu1_2+relu2_2=2,tv=0.02

Terms are separated by commas. A term is a name of `TERMS`, then `@` and its layers, then `=` and its weight.
Layers are NETWORK:LAYER, joined by `+`; a layer without a network belongs to the network before it, at first to vgg16.
The terms distance, texture and lpips take networks in place of layers, such as lpips@vgg.
The weight is 1 when it is left out. A layer alone, such as vgg16:relu3_3, is a feature loss at that layer.

Two older spellings are read as well: `feature:0.5` for `feature=0.5` and `distance:vgg19` for `distance@vgg19`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from perceptual.config import LossConfig
from perceptual.errors import ConfigError, shown
from perceptual.losses.base import Materials, Term
from perceptual.losses.lpips import LPIPS
from perceptual.losses.networks import layer_names
from perceptual.losses.ssim import SSIMLoss
from perceptual.losses.terms import (
    AbsoluteLoss,
    DistanceLoss,
    FeatureLoss,
    GridLoss,
    LatticeLoss,
    PixelLoss,
    StyleLoss,
    TemporalLoss,
    TextureLoss,
    TotalVariation,
)

TERMS: dict[str, type[Term]] = {
    "content": FeatureLoss,
    "style": StyleLoss,
    "tv": TotalVariation,
    "feature": FeatureLoss,
    "pixel": PixelLoss,
    "l1": AbsoluteLoss,
    "distance": DistanceLoss,
    "lpips": LPIPS,
    "ssim": SSIMLoss,
    "texture": TextureLoss,
    "grid": GridLoss,
    "lattice": LatticeLoss,
    "temporal": TemporalLoss,
}
"""The terms that an objective may name."""


@dataclass(frozen=True)
class TermSpec:
    """One term of an objective before it is built.

    kind: a key of `TERMS`. layers: as NETWORK:LAYER; none means the term's own default. weight: 0 to 1e12.
    name: name of the term in logs and cards; kind and layer when it is left out.
    """

    kind: str
    layers: tuple[str, ...] = ()
    weight: float = 1.0
    name: str = ""


def parse_objective(text: str) -> tuple[TermSpec, ...]:
    """The terms of an objective written as in the module's docstring. Equal terms add up.

    Raises:
        ConfigError: an unknown term or layer, a weight that is not a number from 0 to 1e12, or all weights are 0.
    """
    found: dict[tuple[str, tuple[str, ...]], TermSpec] = {}
    for part in text.split(","):
        spec = _parse_term(part.strip(), text)
        key = (spec.kind, spec.layers)
        found[key] = replace(spec, weight=spec.weight + found[key].weight) if key in found else spec
    if not any(spec.weight for spec in found.values()):
        raise ConfigError(f"The weights in {shown(text)} are all 0: give weights such as 1 and 0.5.")
    return tuple(found.values())


def _parse_term(part: str, text: str) -> TermSpec:
    name, weight = part, 1.0
    for sign in "=:":
        before, found, number = part.rpartition(sign)
        if found:
            with suppress(ValueError):  # a colon without a number behind it belongs to the layer
                name, weight = before.strip(), float(number)
                break
    if not name or "=" in name or not 0 <= weight <= 1e12:
        raise ConfigError(f'{shown(text)} is no objective: write "feature=1,l1=0.5", with weights from 0 to 1e+12.')
    kind, _, listed = name.partition("@")
    if kind in TERMS:
        layers = _layers(listed) if listed else ()
        if layers and not TERMS[kind].takes_layers:
            raise ConfigError(f"The loss {kind} takes no layers: write {kind}={weight:g}.")
        return TermSpec(kind, layers, weight)
    older, _, network = name.partition(":")
    if older in ("distance", "texture"):
        return TermSpec(older, (network,), weight, name)
    if listed or (":" not in name and name.partition("@")[0] not in layer_names("vgg16")):
        raise ConfigError(
            f"There is no loss {shown(kind)}; choose {', '.join(TERMS)}, or a NETWORK:LAYER such as vgg16:relu3_3."
        )
    return TermSpec("feature", (name,), weight, name)


def _layers(listed: str) -> tuple[str, ...]:
    """The layers of "vgg16:relu1_2+relu2_2", each with its network where one was named before it."""
    layers: list[str] = []
    network = ""
    for layer in listed.split("+"):
        before, colon, _ = layer.strip().partition(":")
        network = before if colon else network
        layers.append(layer.strip() if colon or not network else f"{network}:{layer.strip()}")
    return tuple(layers)


REPLACED = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight", "lattice_weight")
"""The settings that `LossConfig.loss` replaces."""


def check_alone(given: Callable[[str], bool]) -> None:
    """Check that no setting is given that the whole objective, `LossConfig.loss`, replaces.

    given: says of a setting, such as "tv_weight", whether it is given.

    Raises:
        ConfigError: one is given.
    """
    for setting in filter(given, REPLACED):
        flag = f"--{setting.replace('_', '-')}"
        raise ConfigError(f"--loss is the whole objective, with its weights and layers: leave {flag} out.")


def objective_of(config: LossConfig) -> tuple[TermSpec, ...]:
    """The terms of an objective of style transfer (paper, eq. 5): `config.loss`, or what the other settings stand for.

    Raises:
        ConfigError: as `parse_objective`.
    """
    if config.loss:
        return parse_objective(config.loss)
    specs = [
        TermSpec("content", config.content_layers, config.content_weight) if config.content_layers else None,
        TermSpec("style", config.style_layers, config.style_weight) if config.style_layers else None,
        TermSpec("tv", (), config.tv_weight) if config.tv_weight else None,
        TermSpec("lattice", (), config.lattice_weight) if config.lattice_weight else None,
    ]
    return tuple(spec for spec in specs if spec is not None)


def check_weights(specs: Sequence[TermSpec]) -> None:
    """Check that a term of an objective has a weight.

    Raises:
        ConfigError: all weights are 0.
    """
    if not any(spec.weight for spec in specs):
        raise ConfigError("All weights of the losses are 0: give one of them, such as --style-weight 5.")


def check_still(specs: Sequence[TermSpec]) -> None:
    """Check that an objective for single pictures has no term that compares frames.

    Raises:
        ConfigError: it has one.
    """
    if "temporal" in [spec.kind for spec in specs]:
        raise ConfigError("The loss temporal compares frames of a video: leave it out for a picture.")


def layers_of(specs: Sequence[TermSpec], kind: str | None = None) -> tuple[str, ...]:
    """The layers that the terms compare, as NETWORK:LAYER. kind: only terms of this kind, such as "style".

    Raises:
        ConfigError: an unknown network or layer.
    """
    chosen = [spec for spec in specs if kind in (None, spec.kind)]
    found = [layer for spec in chosen for each in spec.layers or (None,) for layer in TERMS[spec.kind].needs(each)]
    return tuple(dict.fromkeys(found))


def build_terms(
    specs: Sequence[TermSpec], materials: Materials, *, relative: bool = False
) -> dict[str, tuple[Term, float]]:
    """{name: (term, weight)} for `PerceptualLoss`: a term for each layer. The weights of equal terms are added.

    specs: as from `parse_objective`. materials: the further inputs of the terms, such as Gram matrices. relative: the
        weight of a kind is shared among its layers, and multiplied by the kind's `relative_weight`.

    Raises:
        ConfigError: an unknown layer, one name for different terms, or `materials` does not have the inputs of a term.
    """
    terms: dict[str, tuple[Term, float]] = {}
    made_of: dict[str, tuple[str, str | None]] = {}
    for spec in specs:
        made = TERMS[spec.kind]
        share = made.relative_weight / max(1, len(spec.layers)) if relative else 1.0
        for layer in spec.layers or (None,):
            name = spec.name or (f"{spec.kind} {layer}" if layer else spec.kind)
            if made_of.setdefault(name, (spec.kind, layer)) != (spec.kind, layer):
                raise ConfigError(f"Two different terms are called {shown(name)}: give each a name of its own.")
            term, weight = terms.get(name) or (made.build(layer, materials), 0.0)
            terms[name] = (term, weight + spec.weight * share)
    return terms
