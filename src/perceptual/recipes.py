"""Settings by name: the paper's and ours. Each says what it costs and what to expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from perceptual.config import LossConfig, NetworkConfig, StyleRecipe, TrainConfig, UpscaleRecipe
from perceptual.errors import ConfigError

_LEAN = NetworkConfig(
    architecture="c5s1-16 d32 d64 r64*5 B32 B16 c5s1-3", norm="instance", padding="reflect", tanh_scale=150
)
_RELATIVE = LossConfig(weighting="relative", style_weight=1.0, tv_weight=0.02)
_SHORT = TrainConfig(steps=5_000, batch=1, learning_rate=2e-3, decay="cosine")
_DISTILLED = tuple(f"vgg19-distilled:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))

BASELINE_LOSS = replace(_RELATIVE, style_weight=5.0)  # of `perceptual optimize style`: chosen by eye among 2, 10 and 40
INVERT_TV = 0.01  # of `perceptual optimize invert`, relative to the variation of the picture

SUPER_RESOLUTION = {  # supplement, Table 2; x2 is not in the paper: one stride-1/2 convolution less
    2: "c9s1-64 r64*4 u64 c9s1-3",
    4: "c9s1-64 r64*4 u64 u64 c9s1-3",
    8: "c9s1-64 r64*4 u64 u64 u64 c9s1-3",
}

_VGG = tuple(f"vgg16-torchvision:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"))
GALLERY_NOISE = 0.06

_PAPER = StyleRecipe(
    network=NetworkConfig(padding="zero"),  # with the activation sizes of the supplement's Table 1
    # Eq. 4's sum is taken as a mean, as in the authors' code, because the style weight of 5 belongs to that.
    loss=LossConfig(style_convention="code", style_weight=5.0),
    train=TrainConfig(crop="squash", precision="float32"),
)

STYLE_RECIPES: dict[str, tuple[str, StyleRecipe]] = {
    "fast": (
        "a lean network under the paper's layers, for a computer without a GPU",
        StyleRecipe(network=_LEAN, loss=_RELATIVE, train=_SHORT),
    ),
    "sketch": (
        "as fast, under a loss network that costs a tenth (vgg19-distilled, which is not downloaded: give its file)",
        StyleRecipe(
            network=_LEAN,
            loss=replace(_RELATIVE, content_layers=("vgg19-distilled:relu2_2",), style_layers=_DISTILLED),
            train=_SHORT,
        ),
    ),
    "own": (
        "a new style for a trained network (--from gallery): gamma and beta alone, in minutes without a GPU; more "
        "--steps go on with all weights",
        StyleRecipe(
            network=replace(_LEAN, norm="conditional_instance"),
            loss=replace(_RELATIVE, style_weight=2.0),  # as the gallery was trained
            train=replace(_SHORT, steps=300, style_steps=300, preview_every=50, save_every=50),
        ),
    ),
    "gallery": (
        "what the shipped gallery is trained with: styles at two sizes, noise against grids; days without a GPU",
        StyleRecipe(
            network=replace(_LEAN, norm="conditional_instance", noise=GALLERY_NOISE),
            loss=replace(
                _RELATIVE,
                content_layers=("vgg16-torchvision:relu3_3",),
                style_layers=(*_VGG, *(f"{layer}@2" for layer in _VGG)),
                lattice_weight=0.3,
            ),
            train=replace(_SHORT, steps=250_000, batch=2, learning_rate=1e-3, decay="tail", warmup=20, ema=0.999),
            style_size=640,
        ),
    ),
    "paper": (
        "the paper's network, objective and schedule (supplement, Table 1; section 4.1); hours on a GPU, days on a CPU",
        _PAPER,
    ),
    "authors": (
        "as paper, in the way of the authors' code: reflection once at the start, 150 tanh, content at relu3_3",
        replace(
            _PAPER,
            network=NetworkConfig(padding="reflect-start", tanh_scale=150),
            loss=replace(_PAPER.loss, content_layers=("vgg16:relu3_3",), tv_weight=1e-6),
        ),
    ),
}


def style_recipe(name: str) -> StyleRecipe:
    """The settings of a recipe of `perceptual train style`.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in STYLE_RECIPES:
        raise ConfigError(f"There is no recipe {name!r}; choose one of {', '.join(STYLE_RECIPES)}.")
    return STYLE_RECIPES[name][1]


def _sub_pixel(scale: int) -> NetworkConfig:
    return NetworkConfig(architecture=f"c3s1-64 r64*6 s{scale}-3", norm="none", padding="zero", output="bicubic")


def _papers(scale: int) -> NetworkConfig:
    if scale not in SUPER_RESOLUTION:
        raise ConfigError(f"The paper's network doubles: --scale is {scale}, choose 2, 4 or 8.")
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
        "a network that works at the small size and adds to the bicubic enlargement, without batch norm",
        _sub_pixel,
        UpscaleRecipe(train=_CROPS),  # of 32 px in the small picture
    ),
    "srcnn": (
        "SRCNN 9-5-5 (Dong et al., 2016), on luma, the paper's baseline",
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

    Raises:
        ConfigError: there is no such recipe, or none for that scale.
    """
    if name not in UPSCALE_RECIPES:
        raise ConfigError(f"There is no recipe {name!r}; choose one of {', '.join(UPSCALE_RECIPES)}.")
    if not 2 <= scale <= 16:
        raise ConfigError(f"--scale is {scale}; choose a whole number from 2 to 16.")
    _, network, recipe = UPSCALE_RECIPES[name]
    size = 32 * scale if name == "fast" else -(-recipe.train.size // scale) * scale
    return replace(recipe, network=network(scale), train=replace(recipe.train, size=size))
