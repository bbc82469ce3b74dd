"""The learning rate from step to step."""

from __future__ import annotations

import math

from perceptual.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the next step. step: number of steps that are done."""
    rate, done, steps = config.learning_rate, step - config.style_steps, config.steps - config.style_steps
    if done < 0:
        rate, done, steps = config.style_learning_rate, step, min(config.style_steps, config.steps)
    if done < config.warmup:
        rate *= (done + 1) / config.warmup
    if config.decay == "tail":
        return rate * min(1.0, (steps - done) / (0.3 * steps))
    return rate * 0.5 * (1 + math.cos(math.pi * done / max(1, steps))) if config.decay == "cosine" else rate
