"""What there is to train for: each task gives the training loop its network, objective, previews and card."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptual import checkpoints
from perceptual.checkpoints import Card
from perceptual.config import NetworkConfig, StyleRecipe, UpscaleRecipe, differences, named_weights, to_dict
from perceptual.data import Photographs
from perceptual.errors import ConfigError
from perceptual.files import sha256_of
from perceptual.functional import NOISE_TILE, noise_field
from perceptual.losses import PerceptualLoss, StyleLoss, TemporalLoss, reconstruction_loss, style_transfer_loss
from perceptual.losses.networks import Features
from perceptual.motion import inner, move, random_motion
from perceptual.networks import TransformationNetwork, enlarge
from perceptual.resampling import degrade

CALIBRATION_BATCHES, CALIBRATION_BATCH = 8, 4
NOISE = 8  # levels of 0..255 that the noise between two frames of a film may spread to


@dataclass(frozen=True)
class Task:
    """What the training loop needs to know.

    network: the one to train. loss: the frozen objective, kept on the network's device.
    objective: maps (network, pixels (N, 3, H, W), index of the first picture) to scalar terms with "total".
    preview: pictures worth looking at, (N, 3, H, W). card: the card at a step.
    identity: what a resumed run must share, as a dictionary that JSON can hold. photographs: what it learns from; a run
        is resumed with the same names in the same order.
    """

    network: TransformationNetwork
    loss: PerceptualLoss
    objective: Callable[[nn.Module, Tensor, int], dict[str, Tensor]]
    preview: Callable[[], Tensor]
    card: Callable[[int], Card]
    identity: Mapping[str, Any]
    photographs: Photographs | None = None


def style_weights(styles: int, seed: int, index: int, count: int) -> Tensor:
    """One-hot style weights (count, styles) for pictures index, index + 1 ...; a function of the arguments alone.

    Every run of `styles` pictures has each style once, in an order of its own, so that no style is trained less.
    """
    chosen = []
    for k in range(index, index + count):
        order = list(range(styles))
        random.Random(f"style {seed} {k // styles}").shuffle(order)
        chosen.append(order[k % styles])
    return nn.functional.one_hot(torch.tensor(chosen), styles).float()


@dataclass(frozen=True)
class _StyleRun:
    """The parts of one style transfer run, and what the loop asks of them."""

    paintings: Mapping[str, str]
    recipe: StyleRecipe
    label: Card
    network: TransformationNetwork
    loss: PerceptualLoss
    dataset: Photographs
    samples: Tensor

    def objective(self, forward: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        style = None
        if len(self.paintings) > 1:
            style = style_weights(len(self.paintings), self.recipe.train.seed, index, len(pixels)).to(pixels.device)
        inputs = [style, self._noise(pixels, index)] if self.recipe.network.noise else [style]
        if not self.recipe.temporal_weight:
            terms: dict[str, Tensor] = self.loss(forward(pixels, *inputs), pixels, style)
            return terms
        motion, moved = self._moved(pixels, index)  # with the pictures, films of two frames
        both = forward(
            torch.cat([pixels, moved]), *(None if each is None else torch.cat([each, each]) for each in inputs)
        )
        painted, painted_moved = both.chunk(2)
        beside = {"moved": inner(painted_moved), "carried": inner(move(painted, motion))}
        terms = self.loss(painted, pixels, style, beside=beside)
        return terms

    def _noise(self, pixels: Tensor, index: int) -> Tensor:
        """The noise pattern for each picture, from a place of its own: a function of the seed and the index alone."""
        fields = []
        for k in range(index, index + len(pixels)):
            rng = random.Random(f"noise {self.recipe.train.seed} {k}")
            top, left = rng.randrange(NOISE_TILE), rng.randrange(NOISE_TILE)
            fields.append(noise_field(pixels.shape[-2], pixels.shape[-1], top, left))
        return torch.cat(fields).to(pixels.device)

    def _moved(self, pixels: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """A motion, and the pictures after it, with noise; a function of the seed and the index alone."""
        rng = random.Random(f"motion {self.recipe.train.seed} {index}")
        motion = random_motion(rng, pixels.shape[-1])
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(rng.randrange(1 << 32)))
        moved = move(pixels, motion) + rng.uniform(0, NOISE / 255) * noise.to(pixels.device)
        return motion, moved.clamp(0, 1).contiguous(memory_format=torch.channels_last)

    def preview(self) -> Tensor:
        device, styles = next(self.network.parameters()).device, len(self.paintings)
        shown = torch.arange(max(len(self.samples), styles))
        samples, style = self.samples[shown % len(self.samples)], nn.functional.one_hot(shown % styles, styles).float()
        self.network.eval()
        with torch.no_grad():
            painted = self.network(samples.to(device), style.to(device)).clamp(0, 1)
        self.network.train()
        return torch.cat([samples, painted.float().cpu()])

    def card(self, step: int) -> Card:
        card = replace(self.label, styles=tuple(self.paintings), paintings=self.paintings)
        return _filled(card, step, self.recipe, self.network, self.loss)

    def identity(self) -> dict[str, Any]:
        return {**_identity(self.recipe, self.loss, self.dataset), "paintings": dict(self.paintings)}


@dataclass(frozen=True)
class _UpscaleRun:
    """The parts of one super-resolution run, and what the loop asks of them."""

    recipe: UpscaleRecipe
    label: Card
    network: TransformationNetwork
    loss: PerceptualLoss
    dataset: Photographs
    samples: Tensor

    def objective(self, forward: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        with torch.autocast(pixels.device.type, enabled=False):  # whose rounding would be seen
            low = degrade(pixels, self.network.scale, blur=self.recipe.blur)
        output = forward(low)
        if self.loss.networks is not None:
            # Departure from the paper: the loss network sees the pictures from a corner that changes, so that its
            # pooling meets every phase of the up-sampling; always the same one would favour a grid.
            rng = random.Random(f"shift {self.recipe.train.seed} {index}")
            side = pixels.shape[-1] - self.network.scale + 1  # of one size, or a compiled loss would compile anew
            top, left = rng.randrange(self.network.scale), rng.randrange(self.network.scale)
            output, pixels = (x[..., top : top + side, left : left + side] for x in (output, pixels))
        terms: dict[str, Tensor] = self.loss(output, pixels)
        return terms

    def preview(self) -> Tensor:
        device = next(self.network.parameters()).device
        low = degrade(self.samples, self.network.scale, blur=self.recipe.blur)
        self.network.eval()
        with torch.no_grad():
            large = self.network(low.to(device)).clamp(0, 1)
        self.network.train()
        return torch.cat([enlarge(low, self.network.scale).clamp(0, 1), large.float().cpu()])

    def card(self, step: int) -> Card:
        return _filled(self.label, step, self.recipe, self.network, self.loss)

    def identity(self) -> dict[str, Any]:
        return _identity(self.recipe, self.loss, self.dataset)


def _filled(
    label: Card, step: int, recipe: StyleRecipe | UpscaleRecipe, network: TransformationNetwork, loss: PerceptualLoss
) -> Card:
    return replace(
        label,
        network=network.config,
        steps=step,
        settings=to_dict(recipe),
        loss_networks=loss.networks.hashes() if loss.networks else {},
        references=loss.references(),
        weights=loss.weights,
        software={"perceptual": version("perceptual"), "torch": torch.__version__},
    )


def _identity(recipe: StyleRecipe | UpscaleRecipe, loss: PerceptualLoss, dataset: Photographs) -> dict[str, Any]:
    settings = to_dict(recipe)
    for harmless in ("workers", "tick_every", "preview_every", "save_every", "compile"):
        settings["train"].pop(harmless)
    return {
        **settings,
        "loss_networks": loss.networks.hashes() if loss.networks else {},
        "photographs": list(dataset.names),
    }


def style_task(
    paintings: Mapping[str, tuple[str, Tensor | Features]],
    dataset: Photographs,
    recipe: StyleRecipe,
    *,
    label: Card | None = None,
    paths: Mapping[str, str | Path] | None = None,
) -> Task:
    """Style transfer (paper, section 4.1) for one painting, or several under conditional instance normalisation.

    paintings: what `paintings.read_paintings` gave, or Gram matrices (`losses.style_targets`) in place of pixels.
    label: a card with what people should know, such as the recipe's name.
    paths: weight files by loss network, for those that are not in the cache.

    Raises:
        WeightsError: the weights of a loss network are missing.
    """
    recipe = replace(recipe, network=replace(recipe.network, styles=len(paintings)))
    loss = style_transfer_loss(recipe.loss, [pixels for _, pixels in paintings.values()], paths=paths)
    if recipe.temporal_weight:
        loss.add("temporal", TemporalLoss(), recipe.temporal_weight)
    if recipe.loss.weighting == "relative":
        calibrate(loss, dataset)
    if recipe.style_factors:
        if len(recipe.style_factors) != len(paintings):
            raise ConfigError(f"Give --style-factors one number for each of the {len(paintings)} styles.")
        for _, term in loss.named_terms():
            if isinstance(term, StyleLoss):  # a style that counts twice has half the reference
                term.reference = term.reference / torch.tensor(recipe.style_factors).to(term.reference)
    samples = torch.stack([dataset[k][0] for k in range(min(4, len(dataset)))])
    torch.manual_seed(recipe.train.seed)
    network = TransformationNetwork(recipe.network)
    if network.scale != 1:
        raise ConfigError(f"A style network keeps the size, and this one enlarges {network.scale} times.")
    label = label or Card(task="style", network=recipe.network, data=f"{len(dataset)} photographs")
    hashes = {name: digest for name, (digest, _) in paintings.items()}
    run = _StyleRun(hashes, recipe, label, network, loss, dataset, samples)
    return Task(network, loss, run.objective, run.preview, run.card, run.identity(), dataset)


def upscale_task(
    dataset: Photographs,
    recipe: UpscaleRecipe,
    *,
    label: Card | None = None,
    paths: Mapping[str, str | Path] | None = None,
) -> Task:
    """Super-resolution (paper, section 4.2): from reduced crops back to the crops.

    Each term of the loss counts in units of the mean error of bicubic interpolation, measured on the first pictures,
    so that 1 is "as bad as bicubic" and weights compare across losses. label, paths: as in `style_task`.

    Raises:
        ConfigError: the network does not enlarge, the crops are no multiple of its scale, or an unknown loss.
        WeightsError: the weights of a loss network are missing.
    """
    network = new_upscaler(recipe)
    loss = reconstruction_loss(named_weights(recipe.loss), network.scale, paths=paths)
    count = min(CALIBRATION_BATCHES * CALIBRATION_BATCH, len(dataset))
    totals: dict[str, float] = {}
    with torch.no_grad():
        for k in range(count):
            high = dataset[k][0][None]
            low = enlarge(degrade(high, network.scale, blur=recipe.blur), network.scale)
            for name, value in loss(low, high).items():
                totals[name] = totals.get(name, 0.0) + float(value) / count
    loss.set_references({name: [value] for name, value in totals.items() if name != "total"})
    samples = torch.stack([dataset[k][0] for k in range(min(4, len(dataset)))])
    label = label or Card(task="upscale", network=recipe.network, data=f"{len(dataset)} photographs")
    run = _UpscaleRun(recipe, label, network, loss, dataset, samples)
    return Task(network, loss, run.objective, run.preview, run.card, run.identity(), dataset)


def calibrate(loss: PerceptualLoss, dataset: Photographs) -> dict[str, list[float]]:
    """Measure the references of relative weights on the first pictures of the stream (32 at most)."""
    count = min(CALIBRATION_BATCHES * CALIBRATION_BATCH, max(2, len(dataset)))
    pictures = (dataset[k][0] for k in range(count))
    groups = iter(lambda: list(itertools.islice(pictures, CALIBRATION_BATCH)), [])
    return loss.calibrate(torch.stack(group) for group in groups if len(group) > 1)


def start_from(task: Task, path: str | Path) -> Task:
    """The task beginning with the weights of a trained network of the same architecture; its card says so.

    A style that both networks hold, by name, keeps its gamma and beta; any other begins with those of the style that
    `path` names ("wave"), or with the mean of all that are there. As long as only gamma and beta differ, the task's
    card names the network as its base, and its files hold the style alone.

    Raises:
        CheckpointError: not a checkpoint of ours. ConfigError: of another architecture.
    """
    network, card = read_base(path, task.network.config)
    file, chosen = checkpoints.find_style(path)
    state, wanted = network.state_dict(), task.card(0).styles
    for name in network.style_parameters():
        rows = state[name]
        first = rows[card.styles.index(chosen)] if chosen else rows.mean(0)
        known = dict(zip(card.styles, rows, strict=False))
        state[name] = torch.stack([known.get(style, first) for style in wanted])
    task.network.load_state_dict(state)
    origin = f"{chosen!r} in {_origin(file, card)}" if chosen else _origin(file, card)
    body = checkpoints.body_digest(network) if network.style_parameters() else ""

    def labelled(step: int) -> Card:
        same = body and checkpoints.body_digest(task.network) == body
        return replace(task.card(step), began_from=origin, base=body if same else "")

    return replace(task, card=labelled, identity={**task.identity, "began_from": origin})


def new_upscaler(recipe: UpscaleRecipe) -> TransformationNetwork:
    """The network of a recipe of super-resolution, with its first weights, which are a function of the seed.

    Raises:
        ConfigError: it does not enlarge, holds styles, or the crops are no multiple of its scale.
    """
    torch.manual_seed(recipe.train.seed)
    network = TransformationNetwork(recipe.network)
    if network.scale < 2 or network.styles > 1 or recipe.train.style_steps:
        raise ConfigError("Super-resolution wants a network that enlarges, of one style, and --style-steps 0.")
    if recipe.train.size % network.scale:
        raise ConfigError(f"--size is {recipe.train.size}; give a multiple of the network's scale of {network.scale}.")
    return network


def go_on_from(task: Task, path: str | Path) -> Task:
    """The task beginning with what a trained network of super-resolution has in common with its own, name and shape.

    So a network for x8 begins with the body of one for x4, and its card says so.

    Raises:
        CheckpointError: not a checkpoint of ours, or one for style. ConfigError: they share no layer.
    """
    file = checkpoints.find_network(path, task="upscale")
    network, card = checkpoints.load(file, task="upscale")
    state = task.network.state_dict()
    shared = {k: v for k, v in network.state_dict().items() if k in state and v.shape == state[k].shape}
    if not any(value.ndim > 1 for value in shared.values()):
        raise ConfigError(f"{path} shares no layer with the network to train: choose another --from or --recipe.")
    task.network.load_state_dict({**state, **shared})
    origin = f"{len(shared)} of {len(state)} tensors of {file.name}: {_origin(file, card)}"
    return replace(
        task,
        card=lambda step: replace(task.card(step), began_from=origin),
        identity={**task.identity, "began_from": origin},
    )


def _origin(file: Path, card: Card) -> str:
    origin = f"{card.steps} steps of recipe {card.recipe!r}, file of SHA-256 {sha256_of(file)}"
    return f"{origin}, itself from {card.began_from}" if card.began_from else origin


def read_base(path: str | Path, config: NetworkConfig) -> tuple[TransformationNetwork, Card]:
    """The network to begin with, when it has the layers of `config`.

    Raises:
        CheckpointError: not a checkpoint of ours. ConfigError: of another architecture.
    """
    network, card = checkpoints.load(checkpoints.find_style(path)[0], task="style")
    here, there = to_dict(_open_to_styles(config)), to_dict(_open_to_styles(network.config))
    here["noise"] = there["noise"]  # which is no property of the weights
    for key, (ours, theirs) in differences(here, there).items():
        raise ConfigError(f"{path} has {key} {theirs}, which differs from this recipe's {ours}.")
    return network, card


def recipe_from(recipe: StyleRecipe, path: str | Path) -> StyleRecipe:
    """The recipe with what a trained network settles: its layers, ready for new styles of its own; that gamma and beta
    are not learnt alone where it has none; and, where it was trained for video, that its styles are as well.

    Raises:
        CheckpointError: not a checkpoint of ours.
    """
    card = checkpoints.read_card(checkpoints.find_style(path)[0])
    network = _open_to_styles(card.network)
    network = replace(network, noise=network.noise or recipe.network.noise)
    temporal = card.settings.get("temporal_weight", recipe.temporal_weight)
    train = recipe.train if "instance" in network.norm else replace(recipe.train, style_steps=0)
    return replace(recipe, network=network, train=train, temporal_weight=temporal)


def _open_to_styles(config: NetworkConfig) -> NetworkConfig:
    return replace(config, norm="conditional_instance", styles=1) if "instance" in config.norm else config
