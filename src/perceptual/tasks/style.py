"""Style transfer (paper, section 4.1): a network learns to paint photos in the style of one or more paintings."""

from __future__ import annotations

import dataclasses
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from perceptual import checkpoints, images
from perceptual.checkpoints import Card
from perceptual.config import NetworkConfig, TrainCommand, differences, to_dict
from perceptual.data import Photographs
from perceptual.errors import ConfigError, shown
from perceptual.files import sha256_of
from perceptual.functional import NOISE_TILE, noise_field
from perceptual.losses import PerceptualLoss, StyleLoss, TermSpec, layers_of, objective_of, style_transfer_loss
from perceptual.losses.language import check_alone
from perceptual.losses.networks import Features
from perceptual.motion import inner, move, random_motion
from perceptual.networks import TransformationNetwork, parse_architecture
from perceptual.tasks.base import Paths, Task, calibrate, origin
from perceptual.tasks.style_recipes import STYLE_RECIPES, StyleRecipe

NOISE = 8
"""Maximum standard deviation of the noise that is added to the moved photo, in levels of 0..255."""

Paintings = Mapping[str, tuple[str, Tensor | Features]]
"""{style: (SHA-256 of the painting's file, pixels (1, 3, h, w) or Gram matrices of `losses.style_targets`)}."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStyleCommand(TrainCommand):
    """Train a network to paint in the style of one painting or more (paper, section 4.1).
    With --from gallery it takes minutes.

    Example: perceptual train style --style wave.jpg --data photos/ --out wave.safetensors
    perceptual train style --style wave.jpg --data photos/ --from gallery
    """

    everyday: ClassVar[tuple[str, ...]] = (
        *("style", "data", "out", "start_from", "recipe", "steps", "size", "style_weight"),
        *("resume", "overwrite"),
    )

    style: tuple[Path, ...] = ()
    """The painting. Several paintings give one network with several styles (needs --norm conditional_instance)."""
    out: Path | None = None
    """The checkpoint file to write; default: wave.safetensors for wave.jpg. The log, the previews and the training
    state are written next to it."""
    recipe: str = "fast"
    """A named set of settings. The other flags change single settings of it. Default with --from: own."""
    start_from: str | None = None
    """A trained network to start from: the name of a shipped one (gallery) or a file. Styles of the same name continue
    from there. New styles start from the mean of its styles, or from one style if you name that style here (wave)."""

    search: str | None = None
    """Train a network for each value of one weight, such as tv_weight=1e-6,1e-5,1e-4, and compare them on --held-out:
    a table of all terms, and the results side by side. The paper chose the weight of total variation in this way
    (section 4.1). Each network is trained for all of --steps."""
    held_out: Path | None = None
    """A folder of photos that are not used for training, for --search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "style", tuple(Path(os.path.expanduser(path)) for path in self.style))
        object.__setattr__(self, "held_out", self.held_out and Path(os.path.expanduser(self.held_out)))
        if self.search and not self.held_out:
            raise ConfigError("--search needs photos that are not used for training: add --held-out FOLDER.")
        if self.held_out and not self.search:
            raise ConfigError("--held-out is for --search: add --search tv_weight=1e-6,1e-5,1e-4, or leave it out.")


class Style(Task):
    """One training run of style transfer: for one painting, or for several with conditional instance normalisation.

    Args:
        paintings: the paintings by name, from `read_paintings`.
        dataset, settings, label, paths: as in `Task`.
    """

    name = "style"
    Settings = StyleRecipe
    recipes = STYLE_RECIPES
    Command = TrainStyleCommand
    begins: ClassVar[str] = (
        "A trained network to start from: the name of a shipped one (gallery), or a file. Styles of the same name "
        "continue from there. New styles start from the mean of its styles, or from one style if you name it (wave)."
    )
    model = "perceptual.apply:Stylizer"
    skip_flat = True
    graphs = True
    needs = "--style PAINTING and --data FOLDER, a folder of photos"

    def __init__(
        self,
        paintings: Paintings,
        settings: StyleRecipe,
        dataset: Photographs,
        *,
        label: Card | None = None,
        paths: Paths | None = None,
    ) -> None:
        self.paintings = paintings
        self._base = ""
        network = replace(settings.network, styles=len(paintings))
        super().__init__(replace(settings, network=network), dataset, label=label, paths=paths)

    @classmethod
    def new_network(cls, settings: StyleRecipe) -> TransformationNetwork:
        """Make the network for these settings. Its first weights depend only on the seed.

        Raises:
            ConfigError: the settings are invalid, or the network enlarges images.
        """
        network = super().new_network(settings)
        if network.scale != 1:
            raise ConfigError(
                f"A style network must keep the image size, but this one enlarges it {network.scale} times."
            )
        return network

    def new_loss(self, paths: Paths | None) -> PerceptualLoss:
        """Make the objective (paper, eq. 5) for all paintings. With relative weights, the references are measured."""
        pixels = [painting for _, painting in self.paintings.values()]
        weight = self.settings.temporal_weight
        more = [TermSpec("temporal", weight=weight)] if weight else []
        loss = style_transfer_loss(self.settings.loss, pixels, paths=paths, more=more)
        if self.settings.loss.weighting == "relative":
            calibrate(loss, self.photographs)
        if factors := self.settings.style_factors:
            if len(factors) != len(self.paintings):
                raise ConfigError(f"Give --style-factors one number for each of the {len(self.paintings)} styles.")
            for _, term in loss.named_terms():
                if isinstance(term, StyleLoss):  # a factor of 2 halves the reference
                    term.reference = term.reference / torch.tensor(factors).to(term.reference)
        return loss

    def draw(self, pixels: Tensor, index: int) -> tuple[Tensor | None, ...]:
        """(style weights, noise, motion, moved photos, place of the loss's crop) of a step; None where not needed."""
        style = noise = motion = moved = place = None
        if len(self.paintings) > 1:
            style = style_weights(len(self.paintings), self.settings.train.seed, index, len(pixels)).to(pixels.device)
        if self.settings.network.noise:
            noise = self._noise(pixels, index)
        if "temporal" in self.loss.weights:
            motion, moved = self._moved(pixels, index)
        if self.settings.loss_shift:
            place = self._place(pixels, index)
        return style, noise, motion, moved, place

    def compute(self, forward: nn.Module, pixels: Tensor, *drawn: Tensor | None) -> dict[str, Tensor]:
        """The terms of equation 5. With a temporal term, the network also paints a moved copy of each photo."""
        style, noise, motion, moved, place = drawn
        conditions = [style] if noise is None else [style, noise]
        if motion is None or moved is None:
            painted, pair = forward(pixels, *conditions), None
        else:
            twice = [None if each is None else torch.cat([each, each]) for each in conditions]
            painted, painted_moved = forward(torch.cat([pixels, moved]), *twice).chunk(2)
            pair = {"moved": inner(painted_moved), "carried": inner(move(painted, motion))}
        if place is not None:
            painted, pixels = (x.index_select(-2, place[0]).index_select(-1, place[1]) for x in (painted, pixels))
        terms: dict[str, Tensor] = self.loss(painted, pixels, style, beside=pair)
        return terms

    def _place(self, pixels: Tensor, index: int) -> Tensor:
        """The rows and columns of the losses' crop, (2, side). They are a tensor, because the bounds of a
        slice cannot change in a CUDA graph."""
        shift, side = self.settings.loss_shift, pixels.shape[-1]
        rng = random.Random(f"loss crop {self.settings.train.seed} {index - self.share[0]}")
        starts = torch.tensor([[rng.randint(0, shift)], [rng.randint(0, shift)]])
        return (starts + torch.arange(side - shift)).to(pixels.device)

    def _noise(self, pixels: Tensor, index: int) -> Tensor:
        """A noise pattern for each photo, at a random offset that depends only on the seed and the index."""
        fields = []
        for k in range(index, index + len(pixels)):
            rng = random.Random(f"noise {self.settings.train.seed} {k}")
            top, left = rng.randrange(NOISE_TILE), rng.randrange(NOISE_TILE)
            fields.append(noise_field(pixels.shape[-2], pixels.shape[-1], top, left, pixels.device))
        return torch.cat(fields)

    def _moved(self, pixels: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """A random motion, and the photos moved by it, with noise. Both depend only on the seed and the step."""
        before, whole = self.share
        rng = random.Random(f"motion {self.settings.train.seed} {index - before}")
        motion = random_motion(rng, pixels.shape[-1]).to(pixels.device)
        shape = (whole or len(pixels), *pixels.shape[1:])  # the noise of the whole step, so that each photo has its own
        generator = torch.Generator(pixels.device).manual_seed(rng.randrange(1 << 32))
        noise = torch.randn(shape, generator=generator, device=pixels.device)[before : before + len(pixels)]
        moved = move(pixels, motion) + rng.uniform(0, NOISE / 255) * noise
        return motion, moved.clamp(0, 1).contiguous(memory_format=torch.channels_last)

    def preview(self) -> Tensor:
        """Photos, then the results, as in `Task`. Each style is shown at least once."""
        styles = len(self.paintings)
        chosen = torch.arange(max(len(self.samples), styles))
        samples = self.samples[chosen % len(self.samples)]
        return torch.cat([samples, self.shown(samples, nn.functional.one_hot(chosen % styles, styles).float())])

    @property
    def title(self) -> str:
        """The names of the styles."""
        return ", ".join(self.paintings)

    @classmethod
    def layers(cls, settings: StyleRecipe) -> Sequence[str]:
        """The layers of loss networks that the objective compares, as NETWORK:LAYER."""
        return layers_of(objective_of(settings.loss))

    def card(self, step: int) -> Card:
        """The card, with the styles. `base` is set while only gamma and beta differ from the network to start from."""
        card = super().card(step)
        hashes = {name: digest for name, (digest, _) in self.paintings.items()}
        same = self._base and checkpoints.body_digest(self.network) == self._base
        return replace(card, styles=tuple(hashes), paintings=hashes, base=self._base if same else "")

    @property
    def identity(self) -> dict[str, Any]:
        """As in `Task`, and the hashes of the paintings."""
        return {**super().identity, "paintings": {name: digest for name, (digest, _) in self.paintings.items()}}

    def start_from(self, path: str | Path) -> Self:
        """Copy the weights of a trained network with the same architecture. The source is recorded in the card.

        A style with the same name in both networks keeps its gamma and beta. Every other style starts with the gamma
        and beta of the style that `path` names ("wave"). If `path` names no style, it starts with the mean of all.

        path: the name of a shipped network or style, or a file. Returns the run itself.

        Raises:
            CheckpointError: the file is not a checkpoint of perceptual. ConfigError: the architectures differ.
        """
        network, card = read_base(path, self.network.config)
        file, chosen = checkpoints.find_style(path)
        state = network.state_dict()
        for name in network.style_parameters():
            rows = state[name]
            first = rows[card.styles.index(chosen)] if chosen else rows.mean(0)
            known = dict(zip(card.styles, rows, strict=False))
            state[name] = torch.stack([known.get(style, first) for style in self.paintings])
        self.network.load_state_dict(state)
        self.began_from = f"{chosen!r} in {origin(file, card)}" if chosen else origin(file, card)
        self._base = checkpoints.body_digest(network) if network.style_parameters() else ""
        return self

    # --- the command

    @classmethod
    def defaults(cls, typed: Callable[[str], str | None]) -> dict[str, Any]:
        """The recipe: `own` with --from. Then the layers are those of the network that --from names."""
        base = typed("--from")
        if typed("--loss"):
            check_alone(lambda setting: typed(f"--{setting.replace('_', '-')}") is not None)
        name = typed("--recipe") or ("own" if base else cls.Command.recipe)
        settings = cls.recipe(name)
        return {"recipe": name, "settings": recipe_from(settings, base) if base else settings}

    @classmethod
    def complete(cls, config: Any) -> Any:
        """Check the settings and the names of the paintings, and set --out to the first name if it was not given."""
        cls.new_network(config.settings)
        if config.style:
            check_names(config.style, config.settings)
        if config.settings.train.style_steps and not config.start_from:
            raise ConfigError("--style-steps needs a trained network: give one with --from gallery.")
        if config.style and config.out is None:
            return replace(config, out=Path(f"{config.style[0].stem}.safetensors"))
        return config

    @classmethod
    def files(cls, config: Any) -> Sequence[Path]:
        """The paintings."""
        paintings: Sequence[Path] = config.style
        return paintings

    @classmethod
    def prepare(cls, config: Any) -> Paintings:
        """Read the paintings, and check that the settings fit the network to start from."""
        paintings = read_paintings(config.style, config.settings)
        if config.start_from:
            read_base(config.start_from, config.settings.network)
        return paintings

    @classmethod
    def from_command(cls, config: Any, prepared: Any, dataset: Photographs, paths: Paths) -> Self:
        """The run that the flags of the command describe."""
        return cls(prepared, config.settings, dataset, label=cls.label(config, dataset), paths=paths)


def style_weights(styles: int, seed: int, index: int, count: int) -> Tensor:
    """One-hot style weights (count, styles) for photos index, index + 1 ...; they depend only on the arguments.

    Each group of `styles` photos contains every style once, in random order, so that all styles are trained equally.
    """
    chosen = []
    for k in range(index, index + count):
        order = list(range(styles))
        random.Random(f"style {seed} {k // styles}").shuffle(order)
        chosen.append(order[k % styles])
    return nn.functional.one_hot(torch.tensor(chosen), styles).float()


def style_name(path: str | Path) -> str:
    """The name of a style, from its file name: "The Wave.jpg" -> "the_wave"."""
    return re.sub(r"[^\w]+", "_", Path(path).stem.lower()).strip("_") or "style"


def read_paintings(styles: Sequence[str | Path], recipe: StyleRecipe) -> dict[str, tuple[str, Tensor | Features]]:
    """Read paintings: {style: (SHA-256 of the file, pixels as in `read_painting`)}. The recipe is checked first.

    styles: files of paintings; the file name gives the name of the style. recipe: the settings of the run.

    Raises:
        ConfigError: as `check_names`. ImageError: a painting cannot be read.
    """
    names = check_names(styles, recipe)
    pixels = [read_painting(path, recipe) for path in styles]
    return {name: (sha256_of(path), p) for name, path, p in zip(names, styles, pixels, strict=True)}


def check_names(styles: Sequence[str | Path], recipe: StyleRecipe) -> list[str]:
    """The names of the styles, checked together with the settings of the run. No file is opened.

    Raises:
        ConfigError: there are no paintings, two have the same name, or several are given without conditional instance
            normalisation; the architecture is invalid; or `style_steps` is set for a network without gamma and beta.
    """
    names, norm = [style_name(path) for path in styles], recipe.network.norm
    layers = parse_architecture(recipe.network.architecture, 1 if recipe.network.channels == "luma" else 3)
    normed = len(layers) > 1 and "instance" in norm  # the last layer has no norm
    if recipe.train.style_steps and not normed:
        raise ConfigError("Only networks with instance norm have gamma and beta for each style: give --style-steps 0.")
    if not names or len(set(names)) < len(names):
        raise ConfigError("Give at least one --style, and give each painting a different file name.")
    if len(names) > 1 and norm != "conditional_instance":
        raise ConfigError(f"{len(names)} styles in one network need --norm conditional_instance, not {norm}.")
    if recipe.network.styles not in (1, len(names)):
        raise ConfigError(
            f"--styles is {recipe.network.styles}, but {len(names)} paintings are given: leave --styles out."
        )
    return names


def read_painting(path: str | Path, recipe: StyleRecipe) -> Tensor:
    """Read a painting: (1, 3, H, W) in [0, 1]. It is scaled down to `style_size` if its longer side is larger.

    Raises:
        ImageError: it cannot be read.
    """
    pixels = images.read(path).pixels
    return images.resize(pixels, longer_side=min(recipe.style_size, max(pixels.shape[-2:])))


def read_base(path: str | Path, config: NetworkConfig) -> tuple[TransformationNetwork, Card]:
    """Load the network to start from, and its card. Check that its layers are those of `config`.

    Raises:
        CheckpointError: the file is not a checkpoint of perceptual. ConfigError: the architectures differ.
    """
    network, card = checkpoints.load(checkpoints.find_style(path)[0], task="style")
    here, there = to_dict(_with_conditional_norm(config)), to_dict(_with_conditional_norm(network.config))
    here["noise"] = there["noise"]  # the weights do not depend on the strength of the noise
    for key, (ours, theirs) in differences(here, there).items():
        raise ConfigError(
            f"{path} has {key} {shown(theirs)}, but the settings have {shown(ours)}: leave out the flags that change "
            "the network."
        )
    return network, card


def recipe_from(recipe: StyleRecipe, path: str | Path) -> StyleRecipe:
    """The recipe with the layers of a trained network, for training new styles from it.

    If the network has no instance norm, `style_steps` is 0. If it was trained with a temporal loss, that is kept.

    path: the name of a shipped network or style, or a file.

    Raises:
        CheckpointError: the file is not a checkpoint of perceptual.
    """
    card = checkpoints.read_card(checkpoints.find_style(path)[0])
    network = _with_conditional_norm(card.network)
    network = replace(network, noise=network.noise or recipe.network.noise)
    temporal = card.settings.get("temporal_weight", recipe.temporal_weight)
    train = recipe.train if "instance" in network.norm else replace(recipe.train, style_steps=0)
    return replace(recipe, network=network, train=train, temporal_weight=temporal)


def _with_conditional_norm(config: NetworkConfig) -> NetworkConfig:
    return replace(config, norm="conditional_instance", styles=1) if "instance" in config.norm else config
