"""What the experiments share: photographs, the objective of a trained network, the baseline, and parts that are kept.

A part is one piece of work, such as the baseline on one photograph, under a file name made of everything that it
depends on: the same command in the same folder goes on with what is there.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.apply import Stylizer
from perceptual.checkpoints import shipped
from perceptual.config import LossConfig, OptimizeConfig, ReproduceConfig, check, from_dict, to_dict
from perceptual.errors import CheckpointError, ConfigError, WeightsError
from perceptual.events import Step
from perceptual.images import finding
from perceptual.losses import full_name, style_targets, weights
from perceptual.losses.networks import (
    Features,
    LossNetwork,
    LossNetworks,
    layer_names,
    missing_networks,
    split_layer,
)
from perceptual.optimize import Objective, Optimization, optimize_style
from perceptual.tasks.style import read_painting, style_name
from perceptual.tasks.style_recipes import StyleRecipe

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
SUBSTITUTES = {"vgg16": ("vgg16-torchvision", "vgg19-distilled")}  # the nearest first; of others the last


class Work(NamedTuple):
    """How much is done at one size."""

    size: int
    images: int
    iterations: int


Kept = TypeVar("Kept")


@dataclass(frozen=True)
class _Numbers:
    """What a kept optimisation holds beside its picture."""

    totals: Sequence[float]
    seconds: Sequence[float]


class Curve(NamedTuple):
    """The baseline on one photograph: objective by iteration from 0 on, seconds by iteration, and the picture."""

    totals: list[float]
    seconds: list[float]
    picture: Tensor

    def ends(self) -> dict[str, float]:
        """Iterations, and the objective before and after them."""
        return {
            "iterations": len(self.totals) - 1,
            "at white noise": self.totals[0],
            "at the end": self.totals[-1],
        }


def samples() -> list[tuple[str, Tensor]]:
    """(name, pixels (1, 3, H, W)) of scikit-image's free sample photographs.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise ConfigError("The sample photographs need scikit-image: pip install 'perceptual[reproduce]'.") from error
    return [(name, images.from_any(getattr(data, name)())) for name in SAMPLES]


@dataclass
class Lab:
    """The settings of a run, its folder, and how far it is.

    config, out: what was asked for. paths: weight files by loss network. Attributes: `notes`, differences of set-up
    that the experiment met and its text must tell.
    """

    config: ReproduceConfig
    out: Path
    paths: Mapping[str, Path]

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self._hashes: dict[str, str] = {}
        self.total = self.done = 0

    def plan(self, default: Sequence[Work], full: Sequence[Work], *, one_size: bool = False) -> list[Work]:
        """The work at each size: the defaults, or the paper's, with what the settings change.

        Raises:
            ConfigError: numbers that do not fit the sizes, several sizes where there is one, or too few photographs.
        """
        chosen, config = list(full if self.config.full else default), self.config
        if one_size and len(config.sizes) > 1:
            raise ConfigError("This experiment has one size: give one number to --sizes, and run it once for each.")
        if config.sizes:
            by_size = {work.size: work for work in chosen}
            chosen = [by_size.get(size, chosen[-1]._replace(size=size)) for size in config.sizes]
        for name in ("images", "iterations"):
            values = getattr(config, name)
            if len(values) not in (0, 1, len(chosen)):
                raise ConfigError(
                    f"--{name} has {len(values)} numbers for {len(chosen)} sizes: give one, or one for each."
                )
            if values:
                numbers = values if len(values) > 1 else values * len(chosen)
                chosen = [work._replace(**{name: number}) for work, number in zip(chosen, numbers, strict=True)]
        most = max(work.images for work in chosen)
        if config.photos:
            if (count := len(finding.find([config.photos]))) < most:
                raise ConfigError(f"{config.photos} holds {count} images, not {most}: lower --images.")
        elif most > len(SAMPLES):
            raise ConfigError(f"There are {len(SAMPLES)} sample photographs: give --photos FOLDER for {most} images.")
        return chosen

    def photographs(self, count: int, size: int) -> list[tuple[str, Tensor]]:
        """(name, pixels (1, 3, size, size)) of the first `count` photographs, their middle squares."""
        found = []
        if self.config.photos:
            paths = [file.path for file in finding.find([self.config.photos])][:count]
            found = [(path.stem, images.read(path).pixels) for path in paths]
        else:
            found = samples()[:count]
        return [(name, square(pixels, size)) for name, pixels in found]

    def title(self, style: str) -> str:
        """Painting, painter and year of a style, where they are known."""
        titles = checkpoints.read_card(checkpoints.find_style("gallery")[0]).titles
        return titles.get(style, style)

    def painting(self, style: str, recipe: StyleRecipe) -> Tensor | str:
        """The painting (1, 3, H, W) for a sheet, or its title where no folder of paintings was given."""
        if not self.config.paintings:
            return self.title(style).replace(", ", "\n")
        return read_painting(self._painting_file(style), recipe)

    def _painting_file(self, style: str) -> Path:
        folder = self.config.paintings or Path()
        for file in finding.find([folder]):
            if style_name(file.path) == style:
                return file.path
        raise ConfigError(f"{folder} holds no painting of the name {style}: call it {style}.jpg, or the like.")

    def told_photographs(self) -> str:
        """What the photographs are, in words."""
        return (
            f"images of {self.config.photos.name}/" if self.config.photos else "free sample photographs of scikit-image"
        )

    def judge(self, network: str, style: str | None = None) -> Judge:
        """A trained network with the objective that it was trained for, in one of its styles."""
        file, named = checkpoints.find_style(self.config.network or network)
        stylizer = Stylizer.load(file, device=self.config.device)
        if not stylizer.styles or not stylizer.card.settings:
            raise ConfigError(f"The card of {file.name} names no style or no objective: take a network trained by "
                              "`perceptual train style`.")  # fmt: skip
        recipe = from_dict(StyleRecipe, stylizer.card.settings)
        return Judge(self, stylizer, recipe, style or self.one_style(named or stylizer.styles[0]))

    def one_style(self, default: str) -> str:
        """The style that is asked for, where there can be but one.

        Raises:
            ConfigError: several are.
        """
        if len(self.config.styles) > 1:
            raise ConfigError("This experiment has one style: give one name to --styles, and run it once for each.")
        return self.config.styles[0] if self.config.styles else default

    def hashes(self, layers: Sequence[str]) -> dict[str, str]:
        """SHA-256 of the weight file of each loss network that these layers name.

        Raises:
            WeightsError: one is missing.
        """
        found = {}
        for network in dict.fromkeys(split_layer(layer)[0] for layer in layers):
            if network not in self._hashes:
                self._hashes[network] = weights.load(network, self.paths.get(network)).sha256
            found[network] = self._hashes[network]
        return found

    def style_targets(self, style: str, recipe: StyleRecipe) -> Features:
        """The Gram matrices of a style at the recipe's layers: of the painting if there is one, else the shipped ones.

        Raises:
            ConfigError: the folder holds no such painting. CheckpointError: no such matrices come with the package.
        """
        layers = [full_name(layer) for layer in recipe.loss.style_layers]
        if self.config.paintings:
            networks = LossNetworks(layers, paths=self.paths)
            return style_targets(recipe.loss, read_painting(self._painting_file(style), recipe), networks)
        targets = shipped.targets(style)
        if missing := [layer for layer in layers if layer not in targets]:
            raise CheckpointError(f"The style targets of {style!r} that come with perceptual lack {missing[0]}: give "
                                  "--paintings FOLDER.")  # fmt: skip
        return targets

    def fetch(self, layers: Sequence[str]) -> Iterator[Step]:
        """Download the loss networks of these layers that are not here.

        Raises:
            WeightsError: one cannot be downloaded; said before any other is.
        """
        missing = missing_networks(layers, self.paths)
        for name in sorted(missing, key=lambda name: weights.PRETRAINED[name].files[0].url is not None):
            yield from weights.fetch(name)

    def reachable(self, layers: Sequence[str], known: Container[str] | None = None) -> dict[str, str]:
        """{layer wanted: layer to use}: itself where the weights at hand reach it, else the one of the same name of
        torchvision's VGG-16 or of the distilled VGG-19, which `notes` tells; layers that none has are left out.

        known: the layers that style targets come with the package for, where others cannot be used.

        Raises:
            WeightsError: the weights are missing, damaged or of something else, or no layer is in reach.
        """
        used = {}
        self.hashes(layers)  # refuses what cannot be read; what is left to fail is the depth
        for layer in layers:
            network, name = split_layer(layer)
            others = (network, *SUBSTITUTES.get(network, ("vgg19-distilled",)))
            others = tuple(other for other in others if known is None or f"{other}:{name}" in known)
            there = next((other for other in others if self.reaches(other, name)), None)
            if there:
                used[layer] = f"{there}:{name}"
            if there != network:
                what = f"{used[layer]} stands for it" if there else "it is left out"
                why = f"The weights of {network} at hand end before {name}"
                if known is not None and layer not in known:
                    why = f"Without --paintings there are no style targets of VGG-16's {name}"
                self.notes.append(f"{why}: {what}.")
        if not used:
            raise WeightsError(f"The weights at hand end before {layers[0]}: get whole ones.")
        return used

    def reaches(self, network: str, layer: str) -> bool:
        """Whether weights at hand reach this layer of the loss network."""
        path = self.paths.get(network)
        if layer not in layer_names(network) or weights.locate(network, path) is None:
            return False
        try:
            LossNetwork(network, [layer], path=path)
        except WeightsError:
            return False
        return True

    def part(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """Where a part with this identity is kept."""
        text = json.dumps(dict(identity), sort_keys=True, default=str)
        return self.out / "parts" / f"{kind}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.part"

    def kept(self, file: Path, kind: type[Kept]) -> tuple[dict[str, Tensor], Kept] | None:
        """The tensors and numbers of a part; None where there is none, or it was damaged and is to be made again."""
        try:
            tensors, info = checkpoints.load_state(file)
            part = kind(**info)
            check(part)
        except (CheckpointError, ConfigError, TypeError):
            return None
        return tensors, part

    def optimize(self, run: Optimization, file: Path) -> Generator[Step, None, Curve]:
        """Run an optimisation, or read what it gave the last time; the value is its Curve."""
        planned = run.config.iterations * run.config.scales
        tensors, numbers = self.kept(file, _Numbers) or ({}, _Numbers((), ()))
        picture = tensors.get("picture", torch.empty(0))
        if picture.dtype == torch.uint8 and picture.ndim == 4 and len(numbers.totals) == len(numbers.seconds) > 0:
            self.done += planned
            yield Step(self.done, self.total)
            return Curve(list(numbers.totals), list(numbers.seconds), picture.float() / 255)
        for step in run.run():
            yield replace(step, index=self.done + step.index, total=self.total)
        self.done += planned
        info = {key: [line[name] for line in run.trace] for key, name in (("totals", "total"), ("seconds", "seconds"))}
        picture = (run.best * 255).round().to(torch.uint8).contiguous()
        checkpoints.save_state(file, {"picture": picture}, info)
        return Curve(info["totals"], info["seconds"], picture.float() / 255)


@dataclass
class Judge:
    """A style of a network with its objective: the same layers, weights, references and pixel range for both sides."""

    lab: Lab
    stylizer: Stylizer
    recipe: StyleRecipe
    style: str

    def __post_init__(self) -> None:
        if self.style not in self.stylizer.styles:
            raise ConfigError(f"The network has no style {self.style!r}; it has {', '.join(self.stylizer.styles)}.")

    @cached_property
    def target(self) -> Features:
        """The Gram matrices of the style, at the size of painting that was trained with."""
        return self.lab.style_targets(self.style, self.recipe)

    @property
    def loss(self) -> LossConfig:
        """The settings of the objective."""
        return self.recipe.loss

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the objective."""
        return (*self.loss.content_layers, *self.loss.style_layers)

    def baseline(self, photograph: Tensor, iterations: int, *, seed: int = 0) -> Optimization:
        """The optimisation method on one photograph (1, 3, H, W), from white noise (paper, section 4.1)."""
        at = self.stylizer.styles.index(self.style)
        references = {k: v if len(v) == 1 else [v[at]] for k, v in self.stylizer.card.references.items()}
        config = OptimizeConfig(
            size=None,
            iterations=iterations,
            seed=seed,
            preview_every=0,
            device=str(self.stylizer.device),
        )
        return optimize_style(
            photograph, self.target, loss=self.loss, config=config, paths=self.lab.paths, references=references or None
        )

    def curve(self, photograph: Tensor, iterations: int, *, seed: int = 0) -> Generator[Step, None, Curve]:
        """The baseline as a part that is kept; its value is the Curve."""
        identity = {
            "loss": to_dict(self.loss),
            "references": self.stylizer.card.references,
            "style": self.style,
            "target": {name: digest(value) for name, value in self.target.items()},
            "photograph": digest(photograph),
            "iterations": iterations,
            "seed": seed,
            "weights": self.lab.hashes(self.layers),
        }
        run = self.baseline(photograph, iterations, seed=seed)
        return (yield from self.lab.optimize(run, self.lab.part("baseline", identity)))

    def set_up(self) -> list[str]:
        """The objective, the network and the optimiser, in words, beside the paper's."""
        loss, card = self.loss, self.stylizer.card
        return [
            f"Layers: content {', '.join(loss.content_layers)}; style {', '.join(loss.style_layers)}.",
            f"Weights: {loss.weighting}, content {loss.content_weight:g}, style {loss.style_weight:g}, total variation "
            f"{loss.tv_weight:g}, as the network was trained with; both sides have the same.",
            f"Network: {self.stylizer.network.config.architecture}, {card.steps} steps of recipe {card.recipe!r}"
            f"{', begun from a trained network' if card.began_from else ''} (the paper: 40,000 steps of batch 4).",
            "Optimiser: the projected L-BFGS of perceptual.lbfgs, with Armijo's rule and 10 remembered steps.",
        ]

    def ours(self, photograph: Tensor) -> Tensor:
        """The network's painting of a photograph (1, 3, H, W), clipped to [0, 1]."""
        return self.stylizer.stylize(photograph, style=self.style)

    def objective(self, photograph: Tensor) -> Objective:
        """Equation 5 with this photograph as content target: images (1, 3, H, W) to terms."""
        return self.baseline(photograph, 1).objective(1.0)


def square(pixels: Tensor, size: int) -> Tensor:
    """The middle square of (1, 3, H, W), scaled to `size`."""
    side = min(pixels.shape[-2:])
    top, left = ((extent - side) // 2 for extent in pixels.shape[-2:])
    return images.resize(pixels[..., top : top + side, left : left + side], size=(size, size))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the sample; 0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
