"""Code that the experiments share: photos, the objective of a trained network, the baseline, and saved parts.

A part is one piece of work, such as the baseline on one photo. Its result is saved in a file named by a hash of
everything that the result depends on, so the same command in the same folder continues from the finished parts.
"""

from __future__ import annotations

import hashlib
import json
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
from perceptual.data import sample_photos, square
from perceptual.errors import CheckpointError, ConfigError, WeightsError
from perceptual.events import Step
from perceptual.images import finding
from perceptual.losses import layers_of, objective_of, style_targets, weights
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
SUBSTITUTES = {"vgg16": ("vgg16-torchvision", "vgg19-distilled")}  # best first; for other networks vgg19-distilled


class Work(NamedTuple):
    """The amount of work at one size: side in pixels, number of images, and iterations for each."""

    size: int
    images: int
    iterations: int


Part = TypeVar("Part")


@dataclass(frozen=True)
class _Numbers:
    """The numbers that are saved with the image of an optimisation."""

    totals: Sequence[float]
    seconds: Sequence[float]


class Curve(NamedTuple):
    """The baseline for one photo: objective and elapsed seconds by iteration from 0 on, and the best image
    (1, 3, H, W) in [0, 1]."""

    totals: list[float]
    seconds: list[float]
    picture: Tensor

    def summary(self) -> dict[str, float]:
        """The number of iterations, and the objective before the first and after the last."""
        return {
            "iterations": len(self.totals) - 1,
            "at white noise": self.totals[0],
            "at the end": self.totals[-1],
        }


def samples() -> list[tuple[str, Tensor]]:
    """(name, pixels (1, 3, H, W) in [0, 1]) of scikit-image's free sample photos.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    missing = "The sample photos need scikit-image: pip install 'perceptual[reproduce]'."
    return list(zip(SAMPLES, sample_photos(SAMPLES, missing), strict=True))


@dataclass
class Lab:
    """The settings, the folder and the progress of one experiment.

    config, out: settings and output folder. paths: weight files by loss network. Attributes: `notes`, sentences for the
    report about differences from the paper's set-up; `total` and `done`, units of work for the Steps.
    """

    config: ReproduceConfig
    out: Path
    paths: Mapping[str, Path]

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self._hashes: dict[str, str] = {}
        self.total = self.done = 0

    def plan(self, default: Sequence[Work], full: Sequence[Work], *, one_size: bool = False) -> list[Work]:
        """The work at each size: `default`, or `full` (the paper's) with --full, changed by the other settings.

        Raises:
            ConfigError: the number of values does not fit the number of sizes, an experiment of one size got several,
                or there are too few photos.
        """
        chosen, config = list(full if self.config.full else default), self.config
        if one_size and len(config.sizes) > 1:
            raise ConfigError("This experiment has one size: give --sizes one number, and run it once for each size.")
        if config.sizes:
            by_size = {work.size: work for work in chosen}
            chosen = [by_size.get(size, chosen[-1]._replace(size=size)) for size in config.sizes]
        for name in ("images", "iterations"):
            values = getattr(config, name)
            if len(values) not in (0, 1, len(chosen)):
                raise ConfigError(
                    f"--{name} has {len(values)} numbers for {len(chosen)} sizes: give one, or one for each size."
                )
            if values:
                numbers = values if len(values) > 1 else values * len(chosen)
                chosen = [work._replace(**{name: number}) for work, number in zip(chosen, numbers, strict=True)]
        most = max(work.images for work in chosen)
        if config.photos:
            if (count := len(finding.find([config.photos]))) < most:
                raise ConfigError(f"{config.photos} contains {count} images, not {most}: lower --images.")
        elif most > len(SAMPLES):
            raise ConfigError(f"There are only {len(SAMPLES)} sample photos: give --photos FOLDER for {most} images.")
        return chosen

    def photographs(self, count: int, size: int) -> list[tuple[str, Tensor]]:
        """(name, pixels (1, 3, size, size) in [0, 1]) of the first `count` photos: their middle squares."""
        if self.config.photos:
            paths = [file.path for file in finding.find([self.config.photos])][:count]
            found = [(finding.label(path.stem), images.read(path).pixels) for path in paths]
        else:
            found = samples()[:count]
        return [(name, square(pixels, size)) for name, pixels in found]

    def title(self, style: str) -> str:
        """Title, painter and year of a style if known, else its name."""
        titles = checkpoints.read_card(checkpoints.find_style("gallery")[0]).titles
        return titles.get(style, style)

    def painting(self, style: str, recipe: StyleRecipe) -> Tensor | str:
        """The painting (1, 3, H, W) for a sheet, or its title if there is no --paintings."""
        if not self.config.paintings:
            return self.title(style).replace(", ", "\n")
        return read_painting(self._painting_file(style), recipe)

    def _painting_file(self, style: str) -> Path:
        folder = self.config.paintings or Path()
        for file in finding.find([folder]):
            if style_name(file.path) == style:
                return file.path
        raise ConfigError(f"{folder} has no painting named {style}: name the file {style}.jpg or similar.")

    def describe_photographs(self) -> str:
        """A description of the photos for the report."""
        return f"images of {self.config.photos.name}/" if self.config.photos else "free sample photos of scikit-image"

    def comparison(self, network: str, style: str | None = None) -> Comparison:
        """A trained network with one of its styles and the objective that it was trained for.

        network: used unless --network is given. style: default is the one of --styles, else the network's first. Raises
        a ConfigError if the card of the network has no styles or no settings, or not this style.
        """
        file, named = checkpoints.find_style(self.config.network or network)
        stylizer = Stylizer.load(file, device=self.config.device)
        if not stylizer.styles or not stylizer.card.settings:
            raise ConfigError(f"The card of {file.name} has no style or no objective: give a network trained by "
                              "`perceptual train style`.")  # fmt: skip
        recipe = from_dict(StyleRecipe, stylizer.card.settings)
        return Comparison(self, stylizer, recipe, style or self.one_style(named or stylizer.styles[0]))

    def one_style(self, default: str) -> str:
        """The style of --styles, or `default`, for experiments with one style.

        Raises:
            ConfigError: --styles has several names.
        """
        if len(self.config.styles) > 1:
            raise ConfigError("This experiment has one style: give --styles one name, and run it once for each style.")
        return self.config.styles[0] if self.config.styles else default

    def hashes(self, layers: Sequence[str]) -> dict[str, str]:
        """SHA-256 of the weight file of each loss network that these layers belong to.

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
        """The Gram matrices of a style at the layers of the recipe: from --paintings if given, else the shipped ones.

        Raises:
            ConfigError: the folder has no such painting. CheckpointError: the package has no such matrices.
        """
        layers = layers_of(objective_of(recipe.loss), "style")
        if self.config.paintings:
            networks = LossNetworks(layers, paths=self.paths)
            return style_targets(recipe.loss, read_painting(self._painting_file(style), recipe), networks)
        targets = shipped.targets(style)
        if missing := [layer for layer in layers if layer not in targets]:
            raise CheckpointError(f"The shipped style targets of {style!r} do not include {missing[0]}: give "
                                  "--paintings FOLDER.")  # fmt: skip
        return targets

    def fetch(self, layers: Sequence[str]) -> Iterator[Step]:
        """Download the loss networks of these layers that are missing.

        Raises:
            WeightsError: one of them has no download address (raised first, before any download), or a download failed.
        """
        missing = missing_networks(layers, self.paths)
        for name in sorted(missing, key=lambda name: weights.PRETRAINED[name].files[0].url is not None):
            yield from weights.fetch(name)

    def reachable(self, layers: Sequence[str], known: Container[str] | None = None) -> dict[str, str]:
        """{wanted layer: layer to use}.

        If the weight file does not include a layer, the layer of the same name of torchvision's VGG-16 or of the
        distilled VGG-19 is used. Layers that no file includes are left out. `notes` gets a sentence about each.

        known: the layers with shipped style targets, if only these can be used.

        Raises:
            WeightsError: the weights are missing, damaged or of another network, or no layer can be used.
        """
        used = {}
        self.hashes(layers)  # raises an error for unreadable files; after this, only the depth can be insufficient
        for layer in layers:
            network, name = split_layer(layer)
            others = (network, *SUBSTITUTES.get(network, ("vgg19-distilled",)))
            others = tuple(other for other in others if known is None or f"{other}:{name}" in known)
            there = next((other for other in others if self.has_layer(other, name)), None)
            if there:
                used[layer] = f"{there}:{name}"
            if there != network:
                what = f"{used[layer]} is used instead" if there else "it is left out"
                why = f"The weights of {network} on this computer do not include {name}"
                if known is not None and layer not in known:
                    why = f"Without --paintings there are no style targets of VGG-16's {name}"
                self.notes.append(f"{why}: {what}.")
        if not used:
            raise WeightsError(f"The weights on this computer do not include {layers[0]}: get a complete weight file.")
        return used

    def has_layer(self, network: str, layer: str) -> bool:
        """True if the weights on this computer include this layer of the loss network."""
        path = self.paths.get(network)
        if layer not in layer_names(network) or weights.locate(network, path) is None:
            return False
        try:
            LossNetwork(network, [layer], path=path)
        except WeightsError:
            return False
        return True

    def part(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """The file of a part. kind: first word of the file name; identity: everything that the result depends on."""
        text = json.dumps(dict(identity), sort_keys=True, default=str)
        return self.out / "parts" / f"{kind}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.part"

    def load_part(self, file: Path, kind: type[Part]) -> tuple[dict[str, Tensor], Part] | None:
        """The tensors and numbers of a saved part. None if it is missing or damaged, so that it is computed again."""
        try:
            tensors, info = checkpoints.load_state(file)
            part = kind(**info)
            check(part)
        except (CheckpointError, ConfigError, TypeError):
            return None
        return tensors, part

    def optimize(self, run: Optimization, file: Path) -> Generator[Step, None, Curve]:
        """Run an optimisation, or load its saved result. A generator of Steps that returns the Curve."""
        planned = run.config.iterations * run.config.scales
        tensors, numbers = self.load_part(file, _Numbers) or ({}, _Numbers((), ()))
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
class Comparison:
    """A network and the baseline for one of its styles, with the same layers, weights, references and pixel range."""

    lab: Lab
    stylizer: Stylizer
    recipe: StyleRecipe
    style: str

    def __post_init__(self) -> None:
        if self.style not in self.stylizer.styles:
            raise ConfigError(f"The network has no style {self.style!r}; it has {', '.join(self.stylizer.styles)}.")

    @cached_property
    def target(self) -> Features:
        """The Gram matrices of the style, at the size of the painting that was used in training."""
        return self.lab.style_targets(self.style, self.recipe)

    @property
    def loss(self) -> LossConfig:
        """The settings of the objective."""
        return self.recipe.loss

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the objective."""
        return layers_of(objective_of(self.loss))

    def baseline(self, photograph: Tensor, iterations: int, *, seed: int = 0) -> Optimization:
        """The baseline: optimisation for one photo (1, 3, H, W), starting from white noise (paper, section 4.1)."""
        at = self.stylizer.styles.index(self.style)
        references = {k: v if len(v) == 1 else [v[at]] for k, v in self.stylizer.card.references.items()}
        config = OptimizeConfig(
            size=None,
            iterations=iterations,
            seed=seed,
            preview_every=0,
            device=str(self.stylizer.device),
            precision="float32",
        )
        return optimize_style(
            photograph, self.target, loss=self.loss, config=config, paths=self.lab.paths, references=references or None
        )

    def curve(self, photograph: Tensor, iterations: int, *, seed: int = 0) -> Generator[Step, None, Curve]:
        """Run the baseline, or load its saved result. A generator of Steps that returns the Curve."""
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

    def describe_setup(self) -> list[str]:
        """Sentences for the report about the objective, the network and the optimiser, compared with the paper."""
        loss, card = self.loss, self.stylizer.card
        layers = f"Layers: content {', '.join(loss.content_layers)}; style {', '.join(loss.style_layers)}."
        weights = f"content {loss.content_weight:g}, style {loss.style_weight:g}, total variation {loss.tv_weight:g}"
        if loss.loss:
            layers, weights = f"Objective: {loss.loss}.", "those of the objective"
        return [
            layers,
            f"Weights: {loss.weighting}, {weights}, as in the training of the network; both methods use the same.",
            f"Network: {self.stylizer.network.config.architecture}, {card.steps} steps of recipe {card.recipe!r}"
            f"{', starting from a trained network' if card.began_from else ''} (the paper: 40,000 steps of batch 4).",
            "Optimiser: the projected L-BFGS of perceptual.lbfgs, with Armijo's rule and a history of 10 steps.",
        ]

    def ours(self, photograph: Tensor) -> Tensor:
        """The result of the network for a photo (1, 3, H, W), clipped to [0, 1]."""
        return self.stylizer.stylize(photograph, style=self.style)

    def objective(self, photograph: Tensor) -> Objective:
        """Equation 5 with this photo (1, 3, H, W) as the content target: a function from images to named terms."""
        return self.baseline(photograph, 1).objective(1.0)


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
