"""What a task is: one kind of image transformation that networks are trained for.

A task is a subclass of `Task` in a file of its own, named in `tasks.TASKS`. The training loop, checkpoints and the
command know no more of it than stands here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from perceptual import checkpoints
from perceptual.checkpoints import Card
from perceptual.config import NetworkConfig, TrainCommand, TrainConfig, differences, to_dict
from perceptual.data import Photographs
from perceptual.errors import ConfigError
from perceptual.files import sha256_of
from perceptual.losses import Materials, PerceptualLoss, build_terms, layers_of, parse_objective
from perceptual.networks import TransformationNetwork

CALIBRATION_BATCHES, CALIBRATION_BATCH = 8, 4
SAMPLES = 4
HARMLESS = ("workers", "tick_every", "preview_every", "save_every", "compile")
"""Settings of training that a resumed run may change."""

Paths = Mapping[str, str | Path]


class Settings(Protocol):
    """What the settings of every task hold; `loss` is an objective (see `losses.language`) unless a task reads more."""

    @property
    def network(self) -> NetworkConfig:
        """The network to train."""

    @property
    def loss(self) -> Any:
        """The objective."""

    @property
    def train(self) -> TrainConfig:
        """How it is trained."""


class Task:
    """One training run of a task: its network, objective, previews and card.

    Class attributes, which a task sets:
        name: the task in cards, in `perceptual train NAME` and in the package's folder models/NAME.
        Settings: a frozen dataclass with `network`, `loss` and `train`, and what else the task needs.
        recipes: named settings, {name: (one line for people, settings)}; the first is the default.
        Command: the flags of `perceptual train NAME` beside the settings, a frozen dataclass.
        begins: help text of the flag --from.
        model: "module:Class" of the `apply.Model` that applies the trained network to images.
        skip_flat: leave out training crops of a single colour.
        needs: flags that `perceptual train NAME` cannot do without, in words.

    Args:
        settings: an instance of Settings.
        dataset: the photographs to learn from.
        label: a card with what is known before training, such as the recipe's name.
        paths: weight files by loss network, for those that are not in the cache.

    Attributes: `network`, the one to train, with its first weights, which are a function of the seed; `loss`, the
    frozen objective; `photographs`, the dataset; `began_from`, where the first weights came from, when not from the
    seed.

    Raises:
        ConfigError: settings that do not fit the task. WeightsError: the weights of a loss network are missing.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]
    recipes: ClassVar[Mapping[str, tuple[str, Any]]]
    Command: ClassVar[type[TrainCommand]] = TrainCommand
    begins: ClassVar[str] = "A trained network to begin with, shipped or a file."
    model: ClassVar[str] = "perceptual.apply.model:Model"
    skip_flat: ClassVar[bool] = False
    needs: ClassVar[str] = "--data FOLDER, a folder of photographs"

    def __init__(
        self, settings: Any, dataset: Photographs, *, label: Card | None = None, paths: Paths | None = None
    ) -> None:
        self.settings, self.photographs, self.began_from = settings, dataset, ""
        self.network = self.new_network(settings)
        self.loss = self.new_loss(paths)
        self.samples = torch.stack([dataset[k][0] for k in range(min(SAMPLES, len(dataset)))])
        self._label = label or Card(task=self.name, network=settings.network, data=f"{len(dataset)} photographs")

    # --- what a task may change

    @classmethod
    def new_network(cls, settings: Any) -> TransformationNetwork:
        """The network of the settings; its first weights are a function of the seed.

        Raises:
            ConfigError: it does not fit the task.
        """
        torch.manual_seed(settings.train.seed)
        return TransformationNetwork(settings.network)

    def new_loss(self, paths: Paths | None) -> PerceptualLoss:
        """The frozen objective; here the one that `settings.loss` writes in the language of objectives."""
        specs = parse_objective(self.settings.loss)
        return PerceptualLoss(build_terms(specs, Materials(scale=self.network.scale)), paths=paths)

    def inputs(self, pixels: Tensor, index: int) -> Tensor:
        """What the network gets for photographs (N, 3, H, W), as a function of the seed and of index alone.

        index: the number of the first photograph in the stream. Here the photographs themselves.
        """
        return pixels

    def objective(self, forward: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        """The named terms and "total" of one step, each a scalar; here output and photograph are compared.

        forward: the network as the training loop runs it. pixels, index: as in `inputs`.
        """
        terms: dict[str, Tensor] = self.loss(forward(self.inputs(pixels, index)), pixels)
        return terms

    def preview(self) -> Tensor:
        """Pictures worth looking at, (N, 3, H, W): inputs, then what the network makes of them."""
        inputs = self.inputs(self.samples, 0)
        return torch.cat([inputs, self.shown(inputs)])

    @classmethod
    def defaults(cls, typed: Callable[[str], str | None]) -> dict[str, Any]:
        """The flags' defaults, by field of Command, which may hang on flags that were typed: "recipe" and "settings".

        typed: gives the text of a flag such as "--recipe", or None.

        Raises:
            ConfigError: there is no such recipe.
        """
        name = typed("--recipe") or next(iter(cls.recipes))
        return {"recipe": name, "settings": cls.recipe(name)}

    @classmethod
    def complete(cls, config: Any) -> Any:
        """The command's flags with what follows from them, such as the name of --out."""
        return config

    @classmethod
    def files(cls, config: Any) -> Sequence[Path]:
        """Files that the command reads beside the photographs; they are no photographs to learn from."""
        return ()

    @classmethod
    def prepare(cls, config: Any) -> Any:
        """Check the command's flags before any download, and read what `from_command` takes as `prepared`.

        Raises:
            ConfigError, ImageError, CheckpointError: what is wrong, in one sentence.
        """
        cls.new_network(config.settings)

    @classmethod
    def layers(cls, settings: Any) -> Sequence[str]:
        """The layers of loss networks that the objective compares, as NETWORK:LAYER.

        Raises:
            ConfigError: an unknown term.
        """
        return layers_of(parse_objective(settings.loss))

    @classmethod
    def from_command(cls, config: Any, prepared: Any, dataset: Photographs, paths: Paths) -> Self:
        """The run that the flags of the command describe. prepared: what `prepare` returned."""
        return cls(config.settings, dataset, label=cls.label(config, dataset), paths=paths)

    def start_from(self, path: str | Path) -> Self:
        """Begin with what a trained network has in common with this one, by name and shape; the card says so.

        path: a shipped network by name, or a file. Returns the run itself.

        Raises:
            CheckpointError: not a checkpoint of ours, or one for another task. ConfigError: they share no layer.
        """
        file = checkpoints.find_network(path, task=self.name)
        network, card = checkpoints.load(file, task=self.name)
        state = self.network.state_dict()
        shared = {k: v for k, v in network.state_dict().items() if k in state and v.shape == state[k].shape}
        if not any(value.ndim > 1 for value in shared.values()):
            raise ConfigError(f"{path} shares no layer with the network to train: choose another --from or --recipe.")
        self.network.load_state_dict({**state, **shared})
        self.began_from = f"{len(shared)} of {len(state)} tensors of {file.name}: {origin(file, card)}"
        return self

    @property
    def title(self) -> str:
        """What is trained, for the line that the command prints when it begins."""
        return f"{self.name} by {self.settings.loss}"

    @classmethod
    def plain(cls, config: Any) -> Any:
        """The settings of the command's recipe as they were before any flag changed them."""
        return cls.recipe(config.recipe)

    # --- what all tasks share

    @classmethod
    def recipe(cls, name: str) -> Any:
        """The settings of a recipe by name.

        Raises:
            ConfigError: there is no such recipe.
        """
        if name not in cls.recipes:
            raise ConfigError(f"There is no recipe {name!r}; choose one of {', '.join(cls.recipes)}.")
        return cls.recipes[name][1]

    @classmethod
    def label(cls, config: Any, dataset: Photographs) -> Card:
        """The part of the card that is known before training."""
        plain = cls.plain(config)
        return Card(
            task=cls.name,
            network=config.settings.network,
            about=config.about,
            licence=config.licence,
            data=f"{len(dataset)} photographs",
            recipe=config.recipe,
            changed=tuple(differences(to_dict(plain), to_dict(config.settings))),
        )

    def card(self, step: int) -> Card:
        """The card of the network after `step` steps."""
        return replace(
            self._label,
            network=self.network.config,
            steps=step,
            settings=to_dict(self.settings),
            began_from=self.began_from,
            loss_networks=self.loss.networks.hashes() if self.loss.networks else {},
            references=self.loss.references(),
            weights=self.loss.weights,
            software={"perceptual": version("perceptual"), "torch": torch.__version__},
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with this one, as a dictionary that JSON can hold."""
        settings = to_dict(self.settings)
        for harmless in HARMLESS:
            settings["train"].pop(harmless)
        hashes = self.loss.networks.hashes() if self.loss.networks else {}
        began = {"began_from": self.began_from} if self.began_from else {}
        return {**settings, "loss_networks": hashes, "photographs": list(self.photographs.names), **began}

    @torch.no_grad()
    def shown(self, inputs: Tensor, *conditions: Tensor) -> Tensor:
        """The network's output for a preview, (N, 3, H, W) in [0, 1], float32, on the CPU."""
        device = next(self.network.parameters()).device
        self.network.eval()
        output: Tensor = self.network(inputs.to(device), *(each.to(device) for each in conditions)).clamp(0, 1)
        self.network.train()
        return output.float().cpu()


def origin(file: Path, card: Card) -> str:
    """Where weights came from, for the card of the network that begins with them."""
    text = f"{card.steps} steps of recipe {card.recipe!r}, file of SHA-256 {sha256_of(file)}"
    return f"{text}, itself from {card.began_from}" if card.began_from else text


def calibrate(loss: PerceptualLoss, dataset: Photographs) -> dict[str, list[float]]:
    """Measure the references of relative weights on the first pictures of the stream (32 at most)."""
    count = min(CALIBRATION_BATCHES * CALIBRATION_BATCH, max(2, len(dataset)))
    pictures = (dataset[k][0] for k in range(count))
    groups = iter(lambda: list(itertools.islice(pictures, CALIBRATION_BATCH)), [])
    return loss.calibrate(torch.stack(group) for group in groups if len(group) > 1)
