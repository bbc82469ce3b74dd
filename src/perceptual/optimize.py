"""Minimising equation 5 over the pixels of one image: style transfer after Gatys et al., feature inversion, texture.

All three use one implementation and differ only in the terms of the objective. The losses, their weights and the Steps
are the same as in training, but an image is optimised instead of a network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from perceptual import images, lbfgs
from perceptual.config import BASELINE_LOSS, INVERT_TV, LossConfig, OptimizeConfig
from perceptual.devices import choose_device, choose_precision, out_of_memory
from perceptual.errors import ConfigError, ImageError, TrainingError
from perceptual.events import Step
from perceptual.losses import LatticeLoss, PerceptualLoss, objective_of, style_transfer_loss
from perceptual.losses.inputs import PICTURES, check_image
from perceptual.losses.language import check_still
from perceptual.losses.networks import Features

Objective = Callable[[Tensor], dict[str, Tensor]]
Size = tuple[int, int]

MIN_REFERENCE_RATIO = 1e-4
"""A reference value that is smaller than this share of the value for white noise is replaced by the latter."""


class Optimization:
    """Minimises an objective over the pixels of an image in [0, 1]. Iterate over `run`, and read `best` at any time.

    Args:
        objective: for a scale in (0, 1] of the size, returns the function to minimise: image (1, 3, h, w) -> loss terms
            by name, with "total".
        start: returns the first image (1, 3, h, w) for a (height, width). It is called for the smallest size only.
        size: (height, width) of the result in pixels.
        config: method, iterations, scales, previews and device. The other settings are used by `objective` and `start`.

    Attributes: `best`, the image (1, 3, H, W) with the lowest objective so far, on the CPU; `trace`, a dictionary for
    each iteration with its number, the scale, the unweighted terms by name, the weighted "total", the number of
    evaluations and the seconds so far. Only images clipped to [0, 1] are evaluated (paper, section 4.1).
    """

    def __init__(
        self,
        objective: Callable[[float], Objective],
        start: Callable[[Size], Tensor],
        size: Size,
        config: OptimizeConfig,
    ) -> None:
        self.objective, self.start, self.size, self.config = objective, start, size, config
        self.device = choose_device(config.device)
        self.trace: list[dict[str, float]] = []
        self._best, self._least = torch.empty(0), math.inf
        self._terms: dict[str, float] = {}
        self._evaluations = 0

    @property
    def best(self) -> Tensor:
        """The best image so far, (1, 3, H, W) of the final size, on the CPU; an empty tensor before the first step."""
        return images.resize(self._best.cpu(), size=self.size).clone() if self._best.numel() else self._best

    def run(self) -> Generator[Step, None, None]:
        """Optimise. Yields a Step with all terms for the start (index 0) and after each iteration.

        Raises:
            TrainingError: a term or the gradient is not a finite number, or the memory ran out. `best` keeps the best
                image up to then. L-BFGS shortens steps to non-finite values, so with it this happens only at the start.
            ConfigError, WeightsError: a layer or a loss network is unknown, or its weights are missing.
            ImageError: the image is too small for the layers of the objective.
        """
        config, began = self.config, time.monotonic()
        total, done = config.iterations * config.scales, 0
        for power in reversed(range(config.scales)):
            scale = 0.5**power
            first = self._first(images.scaled_size(*self.size, scale))
            self._least = math.inf  # objectives of different sizes are not compared
            try:
                for iteration, (x, terms) in enumerate(self._descend(self.objective(scale), first)):
                    if terms["total"] < self._least:
                        self._best, self._least = x, terms["total"]
                    index = done + iteration
                    spent = {"evaluations": self._evaluations, "seconds": round(time.monotonic() - began, 3)}
                    self.trace.append({"iteration": index, "scale": scale, **terms, **spent})
                    has_preview = config.preview_every and index and index % config.preview_every == 0
                    yield Step(index, total, terms, self.best if has_preview else None)
                    if iteration == config.iterations:
                        break
                else:
                    yield Step(index, total, terms, message=f"No step lowers the objective after iteration {index}.")
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise TrainingError("The memory ran out: choose a smaller --size.") from error
            done = index

    def _first(self, size: Size) -> Tensor:
        first = images.resize(self._best, size=size) if self._best.numel() else self.start(size)
        return first.to(self.device, memory_format=torch.channels_last)

    def _descend(self, objective: Objective, x: Tensor) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yield (image, terms) for the start x, then after each iteration."""

        def function(x: Tensor) -> tuple[float, Tensor]:
            pixels = x.detach().requires_grad_()
            terms = objective(pixels)
            (gradient,) = torch.autograd.grad(terms["total"], pixels)
            self._terms = {name: value.item() for name, value in terms.items()}
            if not gradient.isfinite().all():
                self._terms["total"] = math.nan
            self._evaluations += 1
            return self._terms["total"], gradient

        if self.config.method == "lbfgs":
            for point in lbfgs.minimize(function, x, history=self.config.history):
                self._check()
                yield point.x, self._terms
            return
        x = x.clamp(0, 1)
        optimizer = torch.optim.Adam([x], lr=self.config.learning_rate)
        while True:
            _, x.grad = function(x)
            self._check()
            yield x.clone(), self._terms
            optimizer.step()
            x.clamp_(0, 1)

    def _check(self) -> None:
        done = max(0, len(self.trace) - 1)
        for name, value in self._terms.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"The optimisation stopped after {done} iterations: {name} is not a finite number. Lower its "
                    "weight, or choose another layer."
                )


def optimize_style(
    content: Tensor,
    style: Tensor | Features,
    *,
    loss: LossConfig = BASELINE_LOSS,
    config: OptimizeConfig | None = None,
    paths: Mapping[str, str | Path] | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
) -> Optimization:
    """Style transfer by optimisation (Gatys et al., 2015; the paper's baseline, eq. 5).

    content: (1, 3, H, W), RGB [0, 1]. style: the same for the painting, of any size, which is scaled to
        `config.style_size` or the size of the content; or a result of `losses.style_targets`.
    loss: layers and weights. config: method, size, iterations and so on. paths: weight files by loss network, for
        networks that are not in the cache. references: reference values of relative weights, as in the card of a
        network; by default they are measured on the content.

    Returns an `Optimization`. Its loss networks are loaded when `run` is iterated.

    Raises:
        TypeError, ImageError: an image is not a tensor (1, 3, H, W) of floats in [0, 1].
        ConfigError, WeightsError: in `run`, a layer or a loss network is unknown, or its weights are missing.
    """
    return _optimization(
        loss, config or OptimizeConfig(), content=content, style=style, paths=paths, references=references
    )


def invert(
    image: Tensor,
    layer: str = "relu3_3",
    *,
    tv_weight: float = INVERT_TV,
    config: OptimizeConfig | None = None,
    paths: Mapping[str, str | Path] | None = None,
) -> Optimization:
    """Feature inversion (Mahendran and Vedaldi, 2015; Figure 3 of the paper): an image with the features of `image`.

    image: (1, 3, H, W), RGB [0, 1]. layer: NETWORK:LAYER. tv_weight: relative weight of total variation, see
        `perceptual.losses`. config, paths: as in `optimize_style`.

    Raises:
        TypeError, ImageError, ConfigError, WeightsError: as `optimize_style`.
    """
    loss = LossConfig((layer,), (), weighting="relative", tv_weight=tv_weight)
    return _optimization(loss, config or OptimizeConfig(), content=image, paths=paths)


def texture(
    image: Tensor | Features,
    layers: tuple[str, ...] = LossConfig.style_layers,
    *,
    tv_weight: float = 0.0,
    config: OptimizeConfig | None = None,
    paths: Mapping[str, str | Path] | None = None,
) -> Optimization:
    """Style reconstruction (Gatys et al., 2015; the paper's Figure 4): an image with the Gram matrices of `image`.

    image: (1, 3, H, W), RGB [0, 1]; the result has its proportions. Or a result of `losses.style_targets`; the image is
        then square. layers: NETWORK:LAYER. tv_weight: relative weight of total variation. config, paths: as in
        `optimize_style`.

    Raises:
        TypeError, ImageError, ConfigError, WeightsError: as `optimize_style`. ConfigError also if `config.init` is
            "content".
    """
    config = config or OptimizeConfig()
    if config.init == "content":
        raise ConfigError("A texture has no content image to start from: use --init noise.")
    loss = LossConfig((), layers, weighting="relative", style_weight=1.0, tv_weight=tv_weight)
    return _optimization(loss, config, style=image, paths=paths)


def white_noise(size: Size, seed: int) -> Tensor:
    """Uniform noise (1, 3, height, width) in [0, 1]. The same size and seed give the same noise."""
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def measure_references(terms: PerceptualLoss, content: Tensor | None, noise: Tensor) -> dict[str, list[float]]:
    """Reference values of relative weights from one image, for `PerceptualLoss.set_references`.

    content: (1, 3, H, W), or None. noise: white noise of the same size.

    As in training, the content term is 1 at an unrelated image of the same kind; the image rotated by 180 degrees is
    used for this. The style terms and total variation are 1 at the image itself. A term that is nearly 0 there (an
    image that equals its rotation, or a single colour) is 1 at the white noise instead. Without an image, all terms are
    1 at the white noise. The reference of `LatticeLoss` is always 1, as in training.
    """
    terms.set_references({name: [1.0] for name, _ in terms.named_terms()})
    target = {} if content is None else terms.goal(content)
    at_noise = terms(noise, target)
    own, turned = at_noise, at_noise
    if content is not None:
        own, turned = terms(content, target), terms(content.flip(2, 3), target)
    references = {}
    for name, term in terms.named_terms():
        if isinstance(term, LatticeLoss):
            references[name] = [1.0]
            continue
        value = (turned if term.target_layers else own)[name]
        references[name] = [(value if value > MIN_REFERENCE_RATIO * at_noise[name] else at_noise[name]).item()]
    return references


def _checked_shape(loss: LossConfig, content: object, style: object) -> Sequence[int]:
    """(height, width) of the content, else of the style image, else 512 x 512. Checks the loss and both images."""
    check_still(objective_of(loss))
    given = [(name, x) for name, x in (("content", content), ("style image", style)) if isinstance(x, Tensor)]
    for name, image in given:
        check_image(image, name, PICTURES)
        if len(image) != 1:
            raise ImageError(f"The {name} is a batch of {len(image)} images: give one image, (1, 3, H, W).")
    return given[0][1].shape[-2:] if given else (512, 512)


def _optimization(
    loss: LossConfig,
    config: OptimizeConfig,
    *,
    content: Tensor | None = None,
    style: Tensor | Features | None = None,
    paths: Mapping[str, str | Path] | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
) -> Optimization:
    shape = _checked_shape(loss, content, style)
    size = images.scaled_size(shape[0], shape[1], 1 if config.size is None else config.size / max(shape))
    device = choose_device(config.device)
    wanted = config.precision
    if wanted == "auto" and (config.method == "lbfgs" or content is None or style is None):
        wanted = "float32"
    half = choose_precision(device, wanted) == "bf16"

    def start(size: Size) -> Tensor:
        if config.init == "noise" or content is None:
            return white_noise(size, config.seed)
        return images.resize(content, size=size)

    def objective(scale: float) -> Objective:
        size_here = images.scaled_size(*size, scale)
        target = None if content is None else images.resize(content, size=size_here).to(device)
        side = max(1, round(scale * (config.style_size or max(size))))
        painting = images.resize(style, longer_side=side) if isinstance(style, Tensor) else style
        paintings = [] if painting is None else [painting]
        terms = style_transfer_loss(loss, paintings, paths=paths, device=device)
        if half and terms.networks is not None:
            terms.networks.cast(torch.bfloat16)
        target_features = {} if target is None else terms.goal(target)
        if references:
            terms.set_references(references)
        elif loss.weighting == "relative":
            noise = white_noise(size_here, config.seed).to(device)
            terms.set_references(measure_references(terms, target, noise))
        return lambda image: terms(image.to(device), target_features)

    return Optimization(objective, start, size, config)
