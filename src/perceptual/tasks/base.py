"""The base class of all tasks. A task is one kind of image transformation that networks are trained for.

Each task is a subclass of `Task` in its own file, with an entry in `tasks.TASKS`. The training loop, the checkpoints
and the command use only the methods and attributes of this base class.
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
HARMLESS = ("workers", "tick_every", "preview_every", "save_every", "compile", "precision")
"""Training settings that may be different in a resumed run. The number format that `precision` chose must stay."""

Paths = Mapping[str, str | Path]


def decisive(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a run learns, as values that JSON supports: all but those of HARMLESS."""
    found = to_dict(settings)
    found["train"] = {key: value for key, value in found["train"].items() if key not in HARMLESS}
    return found


class Settings(Protocol):
    """The fields that the settings of every task have."""

    @property
    def network(self) -> NetworkConfig:
        """The network to train."""

    @property
    def loss(self) -> Any:
        """The objective: text as in `losses.language`, unless the task has its own type for it."""

    @property
    def train(self) -> TrainConfig:
        """Steps, batch size, learning rate and so on."""


class Task:
    """One training run of a task: its network, objective, previews and card.

    Class attributes that a task sets:
        name: the name of the task in cards, in `perceptual train NAME` and in the package's folder models/NAME.
        Settings: a frozen dataclass with `network`, `loss`, `train`, and the task's other settings.
        recipes: named settings, {name: (description in one line, settings)}; the first one is the default.
        Command: a frozen dataclass with the other flags of `perceptual train NAME`.
        begins: help text of the flag --from.
        model: "module:Class" of the `apply.Model` that applies the trained network to images.
        skip_flat: skip training crops of a single colour.
        graphs: `compute` does the same operations in every step and does not wait for a GPU, so that a CUDA graph can
            repeat them.
        needs: the required flags of `perceptual train NAME`, in words.

    Args:
        settings: an instance of Settings.
        dataset: the photos to learn from.
        label: a card with the facts that are known before training, such as the name of the recipe.
        paths: weight files by name of the loss network, for networks that are not in the cache.

    Attributes:
        network: the network to train. Its first weights depend only on the seed, unless `start_from` was called.
        loss: the frozen objective.
        photographs: the dataset.
        samples: the first photos of the dataset for previews, (N, 3, size, size) in [0, 1], at most SAMPLES.
        began_from: the source of the first weights; "" if they come from the seed.
        share: (offset, total). offset: the number in the step of the first photo of this process. total: the number of
            photos of the whole step. (0, 0) with one process. The training loop sets it.

    Raises:
        ConfigError: the settings do not fit the task. WeightsError: the weights of a loss network are missing.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]
    recipes: ClassVar[Mapping[str, tuple[str, Any]]]
    Command: ClassVar[type[TrainCommand]] = TrainCommand
    begins: ClassVar[str] = "A trained network to start from: the name of a shipped one, or a file."
    model: ClassVar[str] = "perceptual.apply.model:Model"
    skip_flat: ClassVar[bool] = False
    graphs: ClassVar[bool] = False
    needs: ClassVar[str] = "--data FOLDER, a folder of photos"

    def __init__(
        self, settings: Any, dataset: Photographs, *, label: Card | None = None, paths: Paths | None = None
    ) -> None:
        self.settings, self.photographs, self.began_from = settings, dataset, ""
        self.share = (0, 0)
        self.network = self.new_network(settings)
        self.loss = self.new_loss(paths)
        self.samples = torch.stack([dataset[k][0] for k in range(min(SAMPLES, len(dataset)))])
        self._label = label or Card(task=self.name, network=settings.network, data=f"{len(dataset)} photographs")

    # --- methods that a task may override

    @classmethod
    def new_network(cls, settings: Any) -> TransformationNetwork:
        """Make the network for these settings. Its first weights depend only on the seed.

        Raises:
            ConfigError: the network does not fit the task.
        """
        torch.manual_seed(settings.train.seed)
        return TransformationNetwork(settings.network)

    def new_loss(self, paths: Paths | None) -> PerceptualLoss:
        """Make the frozen objective. By default it is parsed from `settings.loss`.

        paths: weight files by name of the loss network.

        Raises:
            ConfigError: an unknown term or layer. WeightsError: weights are missing.
        """
        specs = parse_objective(self.settings.loss)
        materials = Materials(scale=self.network.scale, paths=paths or {})
        return PerceptualLoss(build_terms(specs, materials), paths=paths)

    def inputs(self, pixels: Tensor, index: int) -> Tensor:
        """The inputs of the network for these photos. By default they are the photos themselves.

        Random changes must depend only on the seed and on the number of each photo, so that a run can be resumed
        exactly. Changes that are the same for all photos of a step must depend on the number of its first photo, which
        is `index - self.share[0]`, so that several processes make the same ones.

        pixels: photos (N, 3, H, W) in [0, 1]. index: the number of the first of them in the training stream, from 0.
        """
        return pixels

    def objective(self, forward: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        """Compute the terms of the objective for one step: {term: scalar}, and "total", their weighted sum.

        By default it is `compute` with the random inputs of `draw`.

        forward: the network, as the training loop calls it. pixels, index: as in `inputs`.
        """
        return self.compute(forward, pixels, *self.draw(pixels, index))

    def draw(self, pixels: Tensor, index: int) -> tuple[Tensor | None, ...]:
        """The random inputs of a step, on the device of the photos. By default the inputs of the network.

        pixels, index: as in `inputs`.
        """
        return (self.inputs(pixels, index),)

    def compute(self, forward: nn.Module, pixels: Tensor, *drawn: Tensor | None) -> dict[str, Tensor]:
        """Compute the terms of `objective`. By default the output of the network is compared with the photo.

        forward: the network. pixels: photos (N, 3, H, W) in [0, 1]. drawn: the result of `draw`.
        """
        terms: dict[str, Tensor] = self.loss(forward(*drawn), pixels)
        return terms

    def preview(self) -> Tensor:
        """Images for the preview, (2 N, 3, H, W) in [0, 1]: N inputs, then the N outputs of the network."""
        inputs = self.inputs(self.samples, 0)
        return torch.cat([inputs, self.shown(inputs)])

    @classmethod
    def defaults(cls, typed: Callable[[str], str | None]) -> dict[str, Any]:
        """The default values of flags, by field of Command: at least "recipe" and "settings".

        They may depend on the flags that the user gave.

        typed: a function that returns the text of a flag such as "--recipe", or None if it was not given.

        Raises:
            ConfigError: there is no such recipe.
        """
        name = typed("--recipe") or next(iter(cls.recipes))
        return {"recipe": name, "settings": cls.recipe(name)}

    @classmethod
    def complete(cls, config: Any) -> Any:
        """Fill in flags that follow from other flags, such as the name of --out, and check them. No file is opened.

        config: an instance of Command. Returns the complete one.

        Raises:
            ConfigError: flags contradict each other, or one is missing.
        """
        cls.new_network(config.settings)
        return config

    @classmethod
    def files(cls, config: Any) -> Sequence[Path]:
        """Files that the command reads besides the photos. They are not used as training photos."""
        return ()

    @classmethod
    def prepare(cls, config: Any) -> Any:
        """Check the files of the command before anything is downloaded. Returns `prepared` for `from_command`.

        Raises:
            ConfigError, ImageError, CheckpointError: a file is wrong, or a flag does not fit it.
        """

    @classmethod
    def layers(cls, settings: Any) -> Sequence[str]:
        """The layers of loss networks that the objective compares, as NETWORK:LAYER.

        Raises:
            ConfigError: an unknown term.
        """
        return layers_of(parse_objective(settings.loss))

    @classmethod
    def from_command(cls, config: Any, prepared: Any, dataset: Photographs, paths: Paths) -> Self:
        """Make the run that the flags of the command describe.

        config: an instance of Command. prepared: the result of `prepare`. dataset, paths: as in the class.
        """
        return cls(config.settings, dataset, label=cls.label(config, dataset), paths=paths)

    def start_from(self, path: str | Path) -> Self:
        """Copy weights from a trained network: all tensors that have the same name and shape in both networks.

        The source is recorded in the card.

        path: the name of a shipped network, or a file. Returns the run itself.

        Raises:
            CheckpointError: the file is not a checkpoint of perceptual, or it is for another task.
            ConfigError: the networks have no layer in common.
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
        """A short description of the run. The command prints it at the start."""
        return f"{self.name} by {self.settings.loss}"

    @classmethod
    def plain(cls, config: Any) -> Any:
        """The settings of the command's recipe, without the changes by other flags."""
        return cls.recipe(config.recipe)

    # --- methods that are the same for all tasks

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
        """The card with the facts that are known before training. config: an instance of Command."""
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
        """The card of the network after `step` optimiser steps."""
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
        """Settings and hashes that must be the same in a resumed run, as values that JSON supports."""
        hashes = self.loss.networks.hashes() if self.loss.networks else {}
        began = {"began_from": self.began_from} if self.began_from else {}
        return {
            **decisive(self.settings),
            "loss_networks": hashes,
            "photographs": list(self.photographs.names),
            **began,
        }

    @torch.no_grad()
    def shown(self, inputs: Tensor, *conditions: Tensor) -> Tensor:
        """The output of the network for a preview: (N, 3, H, W) in [0, 1], float32, on the CPU.

        inputs: (N, 3, h, w) in [0, 1]. conditions: further arguments of the network, such as style weights (N, styles).
        """
        device = next(self.network.parameters()).device
        self.network.eval()
        output: Tensor = self.network(inputs.to(device), *(each.to(device) for each in conditions)).clamp(0, 1)
        self.network.train()
        return output.float().cpu()


def origin(file: Path, card: Card) -> str:
    """A description of a trained network, for the card of a network that starts from it."""
    text = f"{card.steps} steps of recipe {card.recipe!r}, file of SHA-256 {sha256_of(file)}"
    return f"{text}, itself from {card.began_from}" if card.began_from else text


def calibrate(loss: PerceptualLoss, dataset: Photographs) -> dict[str, list[float]]:
    """Measure the references of relative weights on the first photos of the dataset, at most 32.

    loss: its references are set. Returns {term: reference values}.
    """
    count = min(CALIBRATION_BATCHES * CALIBRATION_BATCH, max(2, len(dataset)))
    pictures = (dataset[k][0] for k in range(count))
    groups = iter(lambda: list(itertools.islice(pictures, CALIBRATION_BATCH)), [])
    return loss.calibrate(torch.stack(group) for group in groups if len(group) > 1)
