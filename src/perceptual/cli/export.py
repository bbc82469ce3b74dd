"""perceptual export: trained networks for other programs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from perceptual.cli import results
from perceptual.cli.help import WrongCommandLine, parse
from perceptual.cli.terminal import say, tell, with_bar
from perceptual.config import ExportConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Export(ExportConfig):
    """Write a trained network as an ONNX file for other programs, or as a web page.

    The file takes pictures of any size and contains everything that painting or enlarging needs. It is compared with
    PyTorch on five sizes, and refused if it differs. An existing file is replaced.
    Example: perceptual export wave -o wave.onnx
    perceptual export gallery --input uint8 --precision int8 -o gallery.onnx
    perceptual export x4_pixel
    perceptual export gallery --web site/
    """

    everyday: ClassVar[tuple[str, ...]] = ("network", "out", "web", "input", "precision")
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """A shipped style, blend of styles, network or upscaler by name, or a trained file."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """The ONNX file to write. Default: the name of the network with the ending .onnx, in this folder."""


def export(arguments: Sequence[str]) -> int:
    """perceptual export: write an ONNX file and print how far it is from PyTorch. Returns the exit code."""
    config = parse(_Export, arguments, "export")
    if config.web is not None:
        return _page(config.network, config.web, config.runtime)
    from perceptual.export import export_onnx

    made = export_onnx(
        config.network,
        _target(config),
        input=config.input,
        precision=config.precision,
        calibrate=config.calibrate,
    )
    parities = [
        {"width": p.size[1], "height": p.size[0], "psnr": p.decibels, "levels": p.levels} for p in made.parities
    ]
    results.put(output=made.path, bytes=made.size, parities=parities, float32=made.float32)
    say(f"{made.path} against the network in PyTorch and float32:")
    for parity in made.parities:
        say(f"  {parity}")
    if made.float32:
        say(f"These convolutions stay in float32, because int8 is too coarse for them: {', '.join(made.float32)}.")
    if made.slower is not None:
        say(f"It takes {made.slower:.2f} times as long as float32 in onnxruntime on this computer (256 x 256 px).")
    tell(f"{made.path} ({made.size / 1e6:.1f} MB)")
    return 0


def _page(network: str, folder: Path, given: Path | None) -> int:
    """Write a page, after a download of ONNX Runtime Web if it is not on this computer."""
    from perceptual.export import export_page, find, runtime
    from perceptual.files import check_folder

    find(network)  # a wrong name or folder is found before the download
    check_folder(next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each)))
    if given is None and runtime.at_hand() is None:
        say(f"The page needs {runtime.PACKAGE.file} (33 MB). It is downloaded once, from {runtime.PACKAGE.url}.")
        for _ in with_bar(runtime.fetch(), "downloading onnxruntime-web"):
            pass
    files = runtime.files(given)
    if given is not None and (found := runtime.version_of(given)) not in ("", runtime.VERSION):
        say(f"The page is tested with onnxruntime-web {runtime.VERSION}; {given} has {found}.")
    size = 0
    for step in export_page(network, folder, files=files):
        size = step.result or size
    say(f"To open it, run `python -m http.server` in {folder} and go to http://localhost:8000")
    results.put(output=folder / "index.html", bytes=size)
    tell(f"{folder / 'index.html'} (network: {size / 1e6:.1f} MB)")
    return 0


def _target(config: _Export) -> Path:
    """The file to write: --out, or a name made from that of the network."""
    if config.out is not None:
        return config.out
    from perceptual.apply import parse_blend
    from perceptual.checkpoints import is_hub_name, parse_hub_name

    if is_hub_name(config.network) and parse_blend(config.network) == {config.network: 1.0}:
        place = parse_hub_name(config.network)
        return Path(Path(place.file or place.repo).name.removesuffix(".safetensors") + ".onnx")
    if re.search(r"[:,]", config.network) and not os.path.isfile(config.network):
        raise WrongCommandLine("A blend of styles has no name of its own: give --out, such as --out blend.onnx.")
    return Path(Path(config.network).stem + ".onnx")
