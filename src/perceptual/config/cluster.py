"""Settings of work on many machines."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from perceptual.config.checks import Range, check
from perceptual.errors import ConfigError

Engine = Literal["local", "ray"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where `perceptual stylize`, `upscale` and `video` do their work."""

    engine: Engine = "local"
    """local: this process does the work. ray: processes of a Ray cluster do it; see --address. It needs `pip install
    'perceptual[ray]'`. Outputs that exist are skipped, unless --overwrite is given."""
    address: str | None = None
    """For --engine ray: the cluster. auto: the one that this machine belongs to; HOST:PORT: the address of its head;
    default: a new one of this machine alone, for this run."""
    workers: Annotated[int, Range(1, 10_000)] | None = None
    """For --engine ray: number of processes that work at the same time, 1 to 10,000. Each uses one core, or one GPU
    where the cluster has GPUs. Default: one for each core, or one for each GPU."""

    def __post_init__(self) -> None:
        check(self)
        if (others := getattr(super(), "__post_init__", None)) is not None:  # of a command's other settings
            others()
        for name in ("address", "workers"):
            if self.engine == "local" and getattr(self, name) is not None:
                raise ConfigError(f"--{name} is for --engine ray: add --engine ray, or leave --{name} out.")
