"""perceptual evaluate sr: measure super-resolution by the paper's protocol."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from perceptual.cli import results
from perceptual.cli.help import parse
from perceptual.cli.terminal import INTERRUPTED, say, stop_on_signal, tell, with_bar
from perceptual.cli.weights import known_paths
from perceptual.config import EvaluateConfig
from perceptual.errors import ConfigError

if TYPE_CHECKING:
    from perceptual.events import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluate(EvaluateConfig):
    """Measure super-resolution by the usual protocol (paper, section 4.2): the tables and crops of Figures 8 and 9.

    Writes one page for each scale: PSNR, SSIM, perceptual distances and seconds, next to the paper's numbers; crops
    side by side; and the numbers of every image. Example: perceptual evaluate sr --data sr/ --out figures/
    """

    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The folder to write to."""
    overwrite: bool = False
    """Replace files of the same names in --out that this command did not write."""


def evaluate_sr(arguments: Sequence[str]) -> int:
    """perceptual evaluate sr: measure on a folder of images and write pages with tables and crops.

    Returns the exit code.
    """
    config = parse(_Evaluate, arguments, "evaluate sr")
    if os.path.isfile(config.out):
        raise ConfigError(f"{config.out} is a file: give a folder to write to.")
    from perceptual.files import check_folder
    from perceptual.measure.super_resolution import own_methods
    from perceptual.reproduce import report, super_resolution

    settings = EvaluateConfig(**{f.name: getattr(config, f.name) for f in dataclasses.fields(EvaluateConfig)})
    paths = known_paths(config.weights)
    for scale, methods in own_methods(config.networks, device=config.device).items():
        if scale not in config.scales:
            raise ConfigError(f"{next(iter(methods))} enlarges {scale} times: add {scale} to --scales.")
    written: list[Path] = []

    def steps(scale: int) -> Generator[Step, None, None]:
        sets = super_resolution.read(config.data, scale)
        found = yield from super_resolution.measure(sets, scale, settings, paths)
        written.extend(report.write(found, config.out, settings))
        results.add("scales", {"scale": scale, "table": found.table, "images": found.rows})
        say(report.table(found.table), lines=True)

    for scale in config.scales:
        report.check_out(super_resolution.report_name(scale), config.out, overwrite=config.overwrite)
    check_folder(config.out)
    for scale in config.scales:
        with closing(steps(scale)) as work, stop_on_signal() as stopping:
            for _ in with_bar(work, f"x{scale}"):
                if stopping:
                    say("Stopped early; nothing was written for this scale.")
                    return INTERRUPTED
    results.put(outputs=written)
    for path in written:
        tell(path)
    return 0
