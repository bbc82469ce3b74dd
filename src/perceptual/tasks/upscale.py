"""Super-resolution (paper, section 4.2): a network learns to restore crops of photos from their reduced versions."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from perceptual import checkpoints
from perceptual.config import NetworkConfig, Range, TrainCommand, TrainConfig, check
from perceptual.degradation import degrade_like_photos
from perceptual.errors import CheckpointError, ConfigError, shown
from perceptual.losses import PIXELS, PerceptualLoss, parse_objective, reconstruction_loss
from perceptual.losses.language import check_still
from perceptual.losses.networks import check_layer
from perceptual.networks import TransformationNetwork, enlarge
from perceptual.resampling import degrade
from perceptual.tasks.base import CALIBRATION_BATCH, CALIBRATION_BATCHES, Paths, Task

SUPER_RESOLUTION = {  # supplement, Table 2; x2 is not in the paper: it has one up-sampling convolution less
    2: "c9s1-64 r64*4 u64 c9s1-3",
    4: "c9s1-64 r64*4 u64 u64 c9s1-3",
    8: "c9s1-64 r64*4 u64 u64 u64 c9s1-3",
}


@dataclasses.dataclass(frozen=True)
class UpscaleRecipe:
    """The settings of `perceptual train upscale`; `upscale_recipe` gives named ones."""

    network: NetworkConfig = NetworkConfig()
    loss: str = "pixel"
    """pixel (squared error), l1 (absolute error), feature (vgg16:relu2_2, as in the paper) or another NETWORK:LAYER,
    distance (normalised features of several layers), lpips (LPIPS with AlexNet; lpips@vgg: with VGG-16), ssim (1 -
    SSIM), texture (Gram matrices of these layers), grid (errors that repeat every --scale pixels), tv; or several with
    weights, such as feature=1,l1=0.5. Each term is divided by its value for bicubic interpolation."""
    train: TrainConfig = TrainConfig()
    blur: Annotated[float, Range(0, 16)] = 0.0
    """Sigma of a Gaussian blur, 0 to 16 pixels, applied before the bicubic reduction that makes the small images. The
    paper uses 1."""
    degradation: Literal["bicubic", "photo"] = "bicubic"
    """How the small images are made. bicubic: reduced by bicubic interpolation. photo: also blurred, aliased, noisy and
    compressed as JPEG, each at random, so that the network also cleans real photos."""

    def __post_init__(self) -> None:
        check(self)
        check_still(parse_objective(self.loss))
        if self.degradation != "bicubic" and self.blur:
            raise ConfigError("--degradation photo blurs by itself: give --blur 0.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainUpscaleCommand(TrainCommand):
    """Train a network to enlarge images (paper, section 4.2).

    Example: perceptual train upscale --scale 4 --loss feature --data photos/ --out mine.safetensors --from x4_pixel
    """

    everyday: ClassVar[tuple[str, ...]] = (
        *("data", "scale", "out", "start_from", "recipe", "loss", "steps", "size", "resume", "overwrite", "weights"),
    )
    scale: Annotated[int, Range(2, 16)] = 4
    """Factor by which the network enlarges, 2 to 16. The recipe paper allows 2, 4 and 8 only."""
    out: Path | None = None
    """The checkpoint file to write; default: x4.safetensors for --scale 4. The log, the previews and the training state
    are written next to it."""


def _sub_pixel(scale: int) -> NetworkConfig:
    """Departures from the paper's network: no batch norm, 3x3 kernels, six blocks, pixel shuffle, bicubic residual."""
    return NetworkConfig(architecture=f"c3s1-64 r64*6 s{scale}-3", norm="none", padding="zero", output="bicubic")


def _small(scale: int) -> NetworkConfig:
    """The layers compute at half the size of the small image, so that they take little time."""
    layers = f"p2-12 c3s1-32 r32*4 s{2 * scale}-3"
    return NetworkConfig(architecture=layers, norm="none", padding="zero", output="bicubic")


def _papers(scale: int) -> NetworkConfig:
    if scale not in SUPER_RESOLUTION:
        raise ConfigError(
            f"The paper's network has no version for --scale {scale}: choose 2, 4 or 8, or --recipe fast."
        )
    return NetworkConfig(architecture=SUPER_RESOLUTION[scale], padding="zero")


def _srcnn(scale: int) -> NetworkConfig:
    return NetworkConfig(
        architecture="c9s1-64 c5s1-32 c5s1-1",
        norm="none",
        padding="replicate",
        output="linear",
        channels="luma",
        enlarge=scale,
    )


_CROPS = TrainConfig(steps=10_000, batch=16, size=128, decay="cosine", crop="native")

UPSCALE_RECIPES: dict[str, tuple[str, Callable[[int], NetworkConfig], UpscaleRecipe]] = {
    "fast": (
        "a network that computes at the small size and adds its output to bicubic interpolation; without batch norm",
        _sub_pixel,
        UpscaleRecipe(train=_CROPS),  # small images of 32 px at scale 4
    ),
    "video": (
        "a small network for video that computes at half the size; it cleans compressed pictures",
        _small,
        UpscaleRecipe(loss="l1", degradation="photo", train=_CROPS),  # small images of 64 px
    ),
    "srcnn": (
        "SRCNN 9-5-5 (Dong et al., 2016) on luma, the baseline of the paper",
        _srcnn,
        UpscaleRecipe(train=replace(_CROPS, size=64)),
    ),
    "paper": (
        "the paper's network, degradation and schedule (supplement, Table 2; section 4.2); days on a CPU",
        _papers,
        UpscaleRecipe(blur=1.0, train=TrainConfig(steps=200_000, size=288, crop="native", precision="float32")),
    ),
}


def upscale_recipe(name: str, scale: int) -> UpscaleRecipe:
    """The settings of a recipe of `perceptual train upscale` for a scale.

    name: a key of UPSCALE_RECIPES. scale: 2 to 16.

    Raises:
        ConfigError: there is no such recipe, or it does not support this scale.
    """
    if name not in UPSCALE_RECIPES:
        raise ConfigError(f"There is no recipe {name!r}; choose one of {', '.join(UPSCALE_RECIPES)}.")
    if not 2 <= scale <= 16:
        raise ConfigError(f"--scale is {scale}; choose a whole number from 2 to 16.")
    _, network, recipe = UPSCALE_RECIPES[name]
    sides = {"fast": 32 * scale, "video": 64 * scale}
    size = sides.get(name, -(-recipe.train.size // scale) * scale)
    return replace(recipe, network=network(scale), train=replace(recipe.train, size=size))


def network_at(path: str | Path, scale: int) -> NetworkConfig | None:
    """The layers of a trained network, with another factor in its pixel shuffle so that it enlarges `scale` times.

    path: the name of a shipped network, or a file. Returns None if the network cannot be changed to this scale.

    Raises:
        CheckpointError: the file is not a checkpoint of a network that enlarges.
    """
    network = checkpoints.read_card(checkpoints.find_network(path, task="upscale")).network
    own = TransformationNetwork(network).scale
    if own == scale:
        return network
    layers, shuffle, factor = network.architecture.rpartition(" s")
    times, _, channels = factor.partition("-")
    if not shuffle or int(times) * scale % own:
        return None
    return replace(network, architecture=f"{layers} s{int(times) * scale // own}-{channels}")


class Upscale(Task):
    """One training run of super-resolution.

    Each term of the loss is divided by its mean value for bicubic interpolation on the first photos. So 1 means "as bad
    as bicubic", and the weights of different losses can be compared.
    """

    name = "upscale"
    Settings = UpscaleRecipe
    recipes: ClassVar = {name: (about, recipe) for name, (about, _, recipe) in UPSCALE_RECIPES.items()}
    Command = TrainUpscaleCommand
    begins: ClassVar[str] = (
        "A trained network to start from: the name of a shipped one (x4_pixel), or a file. Its layers are used unless "
        "--recipe is given. Layers that differ, for instance at another scale, start from random weights."
    )
    model = "perceptual.apply:Upscaler"

    @classmethod
    def new_network(cls, settings: UpscaleRecipe) -> TransformationNetwork:
        """Make the network for these settings. Its first weights depend only on the seed.

        Raises:
            ConfigError: the network does not enlarge or has several styles, or the crop size is not a multiple of its
                scale.
        """
        network = super().new_network(settings)
        if network.scale < 2 or network.styles > 1 or settings.train.style_steps:
            raise ConfigError("Super-resolution needs a network that enlarges, with one style, and --style-steps 0.")
        if settings.train.size % network.scale:
            raise ConfigError(
                f"--size is {settings.train.size}; give a multiple of the network's scale of {network.scale}."
            )
        return network

    @torch.no_grad()
    def new_loss(self, paths: Paths | None) -> PerceptualLoss:
        """Make the objective. Its references are the errors of bicubic interpolation on the first photos.

        Departure from the paper, which does not divide its losses. For a single loss with Adam it changes nothing.
        """
        loss = reconstruction_loss(self.settings.loss, self.network.scale, paths=paths)
        count = min(CALIBRATION_BATCHES * CALIBRATION_BATCH, len(self.photographs))
        totals: dict[str, float] = {}
        for k in range(count):
            high = self.photographs[k][0][None]
            for name, value in loss(enlarge(self.inputs(high, k), self.network.scale), high).items():
                totals[name] = totals.get(name, 0.0) + float(value) / count
        loss.set_references({name: [value] for name, value in totals.items() if name != "total"})
        return loss

    def inputs(self, pixels: Tensor, index: int) -> Tensor:
        """The reduced photos (N, 3, H / scale, W / scale): blurred by `blur`, then bicubic (paper, section 4.2).

        Departure from the paper: with degradation "photo" they are made by `degrade_like_photos`.
        """
        with torch.autocast(pixels.device.type, enabled=False):  # half precision would change the small images
            if self.settings.degradation == "photo":
                seed = self.settings.train.seed
                return degrade_like_photos(pixels, self.network.scale, seed=seed, index=index)
            return degrade(pixels, self.network.scale, blur=self.settings.blur)

    @property
    def graphs(self) -> bool:  # type: ignore[override]
        """Whether a CUDA graph can repeat `compute`: without a loss network, because its crops change in each step."""
        return self.loss.networks is None

    def objective(self, forward: nn.Module, pixels: Tensor, index: int) -> dict[str, Tensor]:
        """Compare the output with the photos.

        Departure from the paper: the loss network gets a crop at a random offset of less than `scale` pixels. So its
        pooling windows start at every phase of the up-sampling. A fixed offset would favour a grid pattern.
        """
        if self.loss.networks is None:
            return super().objective(forward, pixels, index)
        output = forward(self.inputs(pixels, index))
        rng = random.Random(f"shift {self.settings.train.seed} {index - self.share[0]}")  # one offset for a step
        side = pixels.shape[-1] - self.network.scale + 1  # always the same: a compiled loss is not compiled again
        top, left = rng.randrange(self.network.scale), rng.randrange(self.network.scale)
        output, pixels = (x[..., top : top + side, left : left + side] for x in (output, pixels))
        terms: dict[str, Tensor] = self.loss(output, pixels)
        return terms

    def preview(self) -> Tensor:
        """Results of bicubic interpolation, then of the network, as in `Task`."""
        low = self.inputs(self.samples, 0)
        return torch.cat([enlarge(low, self.network.scale).clamp(0, 1), self.shown(low)])

    @property
    def title(self) -> str:
        """The scale and the objective."""
        return f"x{self.network.scale} by {self.settings.loss}"

    # --- the command

    @classmethod
    def defaults(cls, typed: Callable[[str], str | None]) -> dict[str, Any]:
        """The recipe for the scale. With --from and without --recipe, the layers are those of that network."""
        name, scale = typed("--recipe") or cls.Command.recipe, typed("--scale") or str(cls.Command.scale)
        if not scale.isdecimal() or len(scale) > 9:
            raise ConfigError(f"--scale is {shown(scale)}: give a whole number from 2 to 16, such as 4.")
        settings, base = upscale_recipe(name, int(scale)), typed("--from")
        if base and not typed("--recipe"):
            with suppress(CheckpointError):  # `prepare` raises it again, after the checks of the other flags
                settings = replace(settings, network=network_at(base, int(scale)) or settings.network)
        return {"recipe": name, "scale": int(scale), "settings": settings}

    @classmethod
    def plain(cls, config: Any) -> UpscaleRecipe:
        """The recipe for the scale."""
        return upscale_recipe(config.recipe, config.scale)

    @classmethod
    def complete(cls, config: Any) -> Any:
        """Check the scale, and set --out to its name if it was not given."""
        if (scale := cls.new_network(config.settings).scale) != config.scale:
            raise ConfigError(f"The network of this architecture enlarges {scale} times: give --scale {scale}.")
        return config if config.out else replace(config, out=Path(f"x{config.scale}.safetensors"))

    @classmethod
    def prepare(cls, config: Any) -> None:
        """Check the layers of the objective, and that the network to start from exists."""
        for layer in cls.layers(config.settings):
            if layer != PIXELS:
                check_layer(layer)
        if config.start_from:
            checkpoints.find_network(config.start_from, task="upscale")
