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
    if not names or len(set(names)) < len(names):
        raise ConfigError("Give at least one style image, and no two of the same name.")
    if len(names) > 1 and recipe.network.norm != "conditional_instance":
        raise ConfigError(
            f"{len(names)} styles in one network need --network.norm conditional_instance, not {recipe.network.norm}."
        )
    paintings = [images.resize(images.read(path).pixels, longer_side=recipe.style_size) for path in styles]
    seed = recipe.train.seed
    torch.manual_seed(seed)
    network = TransformationNetwork(replace(recipe.network, styles=len(names)))
    loss = style_transfer_loss(recipe.loss, paintings, paths=paths)
    if recipe.loss.weighting == "relative":
        calibrate(loss, dataset)
    samples = torch.stack([dataset[k][0] for k in range(min(4, len(dataset)))])

    def objective(forward: nn.Module, measure: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        style = None if len(names) == 1 else style_weights(len(names), seed, index, len(pixels)).to(pixels.device)
        terms: dict[str, Tensor] = measure(forward(pixels, style), pixels, style)
        return terms

    def preview(forward: nn.Module) -> Tensor:
        device = next(forward.parameters()).device
        style = torch.arange(len(samples)) % len(names)
        forward.eval()
        with torch.no_grad():
            shown = forward(samples.to(device), nn.functional.one_hot(style, len(names)).float().to(device)).clamp(0, 1)
        forward.train()
        return torch.cat([samples, shown.float().cpu()])

    def card(step: int) -> Card:
        return Card(
            task="style",
            network=network.config,
            styles=names,
            steps=step,
            recipe=recipe_name,
            settings=to_dict(recipe),
            loss_networks=loss.networks.hashes() if loss.networks else {},
            references=loss.references(),
            data=f"{len(dataset)} photographs",
        )

    identity = {**to_dict(recipe), "styles": list(names), "photographs": len(dataset)}
    for harmless in ("workers", "tick_every", "preview_every", "save_every", "compile"):
        identity["train"].pop(harmless)
    return Task(network, loss, objective, preview, card, identity)


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
