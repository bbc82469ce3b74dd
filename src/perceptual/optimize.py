"""Equation 5 minimised over the pixels of one image: style transfer after Gatys et al., feature inversion, texture.

One implementation under all three: they differ only in which terms the objective has. The losses, their weighting and
the Steps are those of training; the thing optimised is an image instead of a network.
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
from perceptual.devices import choose_device, out_of_memory
from perceptual.errors import ConfigError, TrainingError
from perceptual.events import Step
from perceptual.losses import PerceptualLoss, style_transfer_loss
from perceptual.losses.networks import Features

Objective = Callable[[Tensor], dict[str, Tensor]]
Size = tuple[int, int]

SAME = 1e-4  # a reference that is a smaller share of white noise's value is none


class Optimization:
    """Minimises an objective over the pixels of an image in [0, 1]; iterate over `run`, and take `best` at any time.

    Args:
        objective: what to minimise at a scale in (0, 1] of the size: images (1, 3, h, w) to terms with "total".
        start: the first image for a size, (1, 3, h, w); called for the smallest size only.
        size: height and width of the result.
        config: method, iterations, scales, previews and device; the rest is the business of the other two.

    Attributes: `best`, the image (1, 3, H, W) of the least objective so far, on the CPU; `trace`, for each iteration
    its number, the scale, the named terms unweighted, their weighted "total", the evaluations of the objective and the
    seconds so far. Both are of the projected image: nothing outside [0, 1] is ever evaluated (paper, section 4.1).
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
        """The best image so far, of the final size, on the CPU; empty before the first step."""
        return images.resize(self._best.cpu(), size=self.size).clone() if self._best.numel() else self._best

    def run(self) -> Generator[Step, None, None]:
        """Optimise, yielding a Step with all terms for the start (0) and after each iteration.

        Raises:
            TrainingError: a term or the gradient is not a finite number (at the start; L-BFGS shortens a later step
                that leads there), or the memory ran out; `best` is what there was before.
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
                    shown = config.preview_every and index and index % config.preview_every == 0
                    yield Step(index, total, terms, self.best if shown else None)
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
        """Images and their terms, beginning with x itself."""

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

    content, style: (1, 3, H, W) RGB [0, 1] of any sizes; the painting is scaled to `config.style_size`, or as the
        content.
    style may also be what `losses.style_targets` made of a painting. paths: weight files by loss network, for those
    that are not in the cache. references: of relative weights, as in a network's card; else measured on the content.

    Raises:
        ConfigError, WeightsError: a layer or a loss network is unknown or missing.
        ImageError: the size makes content or painting too small for a layer; said by `run` too.
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
    """Feature inversion (Mahendran and Vedaldi, 2015; the paper's Figure 3): an image with the features of `image`.

    image: (1, 3, H, W) RGB [0, 1]. layer: NETWORK:LAYER. tv_weight: relative, see `perceptual.losses`.

    Raises: as `optimize_style`.
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
    """Style reconstruction alone (Gatys et al., 2015; the paper's Figure 4): an image with the Grams of `image`.

    image: (1, 3, H, W) RGB [0, 1], whose proportions the result has; or what `losses.style_targets` made of one, for a
    square. layers: NETWORK:LAYER. tv_weight: relative.

    Raises: as `optimize_style`; ConfigError too when the start is to be the content, which there is not.
    """
    config = config or OptimizeConfig()
    if config.init == "content":
        raise ConfigError("A texture has no content to start from: leave --init at noise.")
    loss = LossConfig((), layers, weighting="relative", style_weight=1.0, tv_weight=tv_weight)
    return _optimization(loss, config, style=image, paths=paths)


def white_noise(size: Size, seed: int) -> Tensor:
    """Uniform noise (1, 3, height, width) over [0, 1], the same for the same size and seed."""
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def measure_references(terms: PerceptualLoss, content: Tensor | None, noise: Tensor) -> dict[str, list[float]]:
    """References of relative weights from one image (1, 3, H, W), and white noise of its size, for `set_references`.

    As in training, content is 1 where the features are as far as those of an unrelated picture of the same kind, which
    the image's half turn is; style and variation are 1 at the image itself. A term that vanishes there (a picture that
    is its own half turn, a plain colour) is 1 at the white noise, and so are all without an image.
    """
    terms.set_references({name: [1.0] for name, _ in terms.named_terms()})
    goal = {} if content is None else terms.goal(content)
    at_noise = terms(noise, goal)
    own, turned = (at_noise, at_noise) if content is None else (terms(content, goal), terms(content.flip(2, 3), goal))
    references = {}
    for name, term in terms.named_terms():
        value = (turned if term.target_layers else own)[name]
        references[name] = [(value if value > SAME * at_noise[name] else at_noise[name]).item()]
    return references


def _optimization(
    loss: LossConfig,
    config: OptimizeConfig,
    *,
    content: Tensor | None = None,
    style: Tensor | Features | None = None,
    paths: Mapping[str, str | Path] | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
) -> Optimization:
    shape = next((image.shape[-2:] for image in (content, style) if isinstance(image, Tensor)), (512, 512))
    size = images.scaled_size(shape[0], shape[1], 1 if config.size is None else config.size / max(shape))
    device = choose_device(config.device)

    def start(size: Size) -> Tensor:
        if config.init == "noise" or content is None:
            return white_noise(size, config.seed)
        return images.resize(content, size=size)

    def objective(scale: float) -> Objective:
        here = images.scaled_size(*size, scale)
        target = None if content is None else images.resize(content, size=here).to(device)
        side = max(1, round(scale * (config.style_size or max(size))))
        at_side = images.resize(style, longer_side=side) if isinstance(style, Tensor) else style
        paintings = [] if at_side is None else [at_side]
        terms = style_transfer_loss(loss, paintings, paths=paths, device=device)
        goal = {} if target is None else terms.goal(target)
        if references:
            terms.set_references(references)
        elif loss.weighting == "relative":
            noise = white_noise(here, config.seed).to(device)
            terms.set_references(measure_references(terms, target, noise))
        return lambda image: terms(image.to(device), goal)

    return Optimization(objective, start, size, config)
