"""What there is to train for: each task gives the training loop its network, objective, previews and card."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptual import checkpoints, images, weights
from perceptual.checkpoints import Card
from perceptual.config import StyleRecipe, to_dict
from perceptual.data import Photographs
from perceptual.errors import ConfigError
from perceptual.losses import PerceptualLoss, style_transfer_loss
from perceptual.networks import TransformationNetwork

CALIBRATION_BATCHES, CALIBRATION_BATCH = 8, 4


@dataclass(frozen=True)
class Task:
    """What the training loop needs to know.

    network: the one to train. loss: the frozen objective, kept on the network's device.
    objective: maps (network, loss, pixels (N, 3, H, W), index of the first picture) to scalar terms with "total".
    preview: maps the network to pictures worth looking at, (N, 3, H, W). card: the card at a step.
    identity: the settings that a resumed run must share.
    """

    network: TransformationNetwork
    loss: PerceptualLoss
    objective: Callable[[nn.Module, nn.Module, Tensor, int], dict[str, Tensor]]
    preview: Callable[[nn.Module], Tensor]
    card: Callable[[int], Card]
    identity: Mapping[str, Any]


def style_name(path: str | Path) -> str:
    """The name of a style from its file: "The Wave.jpg" -> "the_wave"."""
    return re.sub(r"[^\w]+", "_", Path(path).stem.lower()).strip("_") or "style"


def style_weights(styles: int, seed: int, index: int, count: int) -> Tensor:
    """One-hot style weights (count, styles) for pictures index, index + 1 ...; a function of the arguments alone."""
    chosen = [random.Random(f"style {seed} {k}").randrange(styles) for k in range(index, index + count)]
    return nn.functional.one_hot(torch.tensor(chosen), styles).float()


@dataclass(frozen=True)
class _StyleRun:
    """The parts of one style transfer run, and what the loop asks of them."""

    names: tuple[str, ...]
    recipe: StyleRecipe
    recipe_name: str
    network: TransformationNetwork
    loss: PerceptualLoss
    dataset: Photographs
    samples: Tensor

    def objective(self, forward: nn.Module, measure: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        style = None
        if len(self.names) > 1:
            style = style_weights(len(self.names), self.recipe.train.seed, index, len(pixels)).to(pixels.device)
        terms: dict[str, Tensor] = measure(forward(pixels, style), pixels, style)
        return terms

    def preview(self, forward: nn.Module) -> Tensor:
        device = next(forward.parameters()).device
        style = nn.functional.one_hot(torch.arange(len(self.samples)) % len(self.names), len(self.names)).float()
        forward.eval()
        with torch.no_grad():
            shown = forward(self.samples.to(device), style.to(device)).clamp(0, 1)
        forward.train()
        return torch.cat([self.samples, shown.float().cpu()])

    def card(self, step: int) -> Card:
        return Card(
            task="style",
            network=self.network.config,
            styles=self.names,
            steps=step,
            recipe=self.recipe_name,
            settings=to_dict(self.recipe),
            loss_networks=self.loss.networks.hashes() if self.loss.networks else {},
            references=self.loss.references(),
            data=f"{len(self.dataset)} photographs",
        )

    def identity(self) -> dict[str, Any]:
        settings = to_dict(self.recipe)
        for harmless in ("workers", "tick_every", "preview_every", "save_every", "compile"):
            settings["train"].pop(harmless)
        return {**settings, "styles": list(self.names), "photographs": len(self.dataset)}


def style_task(
    styles: Sequence[str | Path],
    dataset: Photographs,
    recipe: StyleRecipe,
    *,
    recipe_name: str = "",
    paths: Mapping[str, str | Path] | None = None,
) -> Task:
    """Style transfer (paper, section 4.1) for one painting, or several under conditional instance normalisation.

    paths: weight files by loss network, for those that are not in the cache.

    Raises:
        ConfigError: several styles under another norm, or two of one name.
        ImageError: a painting cannot be read.
        WeightsError: the weights of a loss network are missing.
    """
    names = tuple(style_name(path) for path in styles)
    norm = recipe.network.norm
    if not names or len(set(names)) < len(names):
        raise ConfigError("Give at least one style image, and no two of the same name.")
    if len(names) > 1 and norm != "conditional_instance":
        raise ConfigError(f"{len(names)} styles in one network need --norm conditional_instance, not {norm}.")
    paintings = [images.resize(images.read(path).pixels, longer_side=recipe.style_size) for path in styles]
    loss = style_transfer_loss(recipe.loss, paintings, paths=paths)
    if recipe.loss.weighting == "relative":
        calibrate(loss, dataset)
    samples = torch.stack([dataset[k][0] for k in range(min(4, len(dataset)))])
    torch.manual_seed(recipe.train.seed)
    network = TransformationNetwork(replace(recipe.network, styles=len(names)))
    run = _StyleRun(names, recipe, recipe_name, network, loss, dataset, samples)
    return Task(network, loss, run.objective, run.preview, run.card, run.identity())


def calibrate(loss: PerceptualLoss, dataset: Photographs) -> dict[str, list[float]]:
    """Measure the references of relative weights on the first pictures of the stream (32 at most)."""
    count = min(CALIBRATION_BATCHES * CALIBRATION_BATCH, max(2, len(dataset)))
    pictures = (dataset[k][0] for k in range(count))
    groups = iter(lambda: list(itertools.islice(pictures, CALIBRATION_BATCH)), [])
    return loss.calibrate(torch.stack(group) for group in groups if len(group) > 1)


def start_from(task: Task, path: str | Path) -> Task:
    """The task beginning with the weights of a trained network of the same architecture; its card says so.

    Raises:
        CheckpointError: not a checkpoint of ours. ConfigError: of another architecture.
    """
    network, card = checkpoints.load(path, task="style")
    if network.config != task.network.config:
        raise ConfigError(
            f"{path} is a network of {network.config}, which differs from this recipe's {task.network.config}."
        )
    task.network.load_state_dict(network.state_dict())
    origin = f"{card.steps} steps of recipe {card.recipe!r}, file of SHA-256 {weights.sha256_of(path)}"
    return replace(task, card=lambda step: replace(task.card(step), began_from=origin))
