"""Trained networks on images: Stylizer, and the walk over files and folders that the command makes with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.checkpoints import Card
from perceptual.config import StylizeConfig
from perceptual.devices import channels_last, choose_device, free_memory, out_of_memory
from perceptual.errors import CheckpointError, ConfigError, ImageError, OutputError, PerceptualError
from perceptual.functional import luma
from perceptual.networks import TransformationNetwork

Image = TypeVar("Image")


def shipped() -> dict[str, Path]:
    """The networks that come with the package, by name."""
    folder = Path(str(resources.files("perceptual"))) / "models"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_checkpoint(name: str | Path) -> Path:
    """The file of a shipped network's name, or a path as it is.

    Raises:
        CheckpointError: neither is there; the text lists the shipped names.
    """
    ours = shipped()
    if str(name) in ours:
        return ours[str(name)]
    path = Path(name).expanduser()
    if path.suffix.lower() in images.IMAGE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a picture, not a trained network: make one with `perceptual train style --style {path} ...`."
        )
    if path.suffix.lower() in (".pth", ".pt", ".t7", ".ckpt", ".onnx"):
        raise CheckpointError(f"{path} is a checkpoint of another program; perceptual reads its own .safetensors only.")
    if os.path.isfile(path):
        return path
    raise CheckpointError(f"There is no style {str(name)!r}: give a trained network, or one of {', '.join(ours)}.")


class Stylizer:
    """A style network that takes and gives images of any kind; load it once, call it often.

    >>> painting = Stylizer.load("starry_night")(photograph)    # PIL, numpy or tensor alike

    Attributes: `card`, what the network is and how it came to be; `device`.
    """

    def __init__(self, network: TransformationNetwork, card: Card, *, device: torch.device | str | None = None) -> None:
        self.device = choose_device(str(device or "auto"))
        self.network = channels_last(network.eval().to(self.device))
        self.card = card

    @classmethod
    def load(cls, name: str | Path, *, device: torch.device | str | None = None) -> Stylizer:
        """Load a shipped style by name, or a trained network by path.

        Raises:
            CheckpointError: no such style or file, or it is damaged, or not a style network.
        """
        network, card = checkpoints.load(find_checkpoint(name), task="style")
        return cls(network, card, device=device)

    def __call__(
        self,
        image: Image,
        *,
        style: str | None = None,
        strength: float = 1.0,
        keep_colors: bool = False,
        size: int | None = None,
    ) -> Image:
        """Paint an image; the result is of the same kind, height and width as `image`, unless `size` is given.

        image: PIL image, numpy array (H, W, 3) uint8 or float [0, 1], or tensor (3, H, W) or (N, 3, H, W) in [0, 1].
        style: one of the network's styles, by name; the first when left out.
        strength: 0 gives the photograph back, 1 the full style; between them the two are mixed pixel by pixel.
        keep_colors: take only the luma from the painting and the colours from the photograph.
        size: paint at this longer side, in pixels; the result has it too.

        Raises:
            ConfigError: strength outside [0, 1], an unknown style, a size below 1.
            ImageError: not an image, or one too large for the free memory.
        """
        pixels = images.from_any(image)
        result = self.stylize(pixels, style=style, strength=strength, keep_colors=keep_colors, size=size)
        return images.to_kind_of(result, image)

    @torch.no_grad()
    def stylize(
        self,
        pixels: Tensor,
        *,
        style: str | None = None,
        strength: float = 1.0,
        keep_colors: bool = False,
        size: int | None = None,
    ) -> Tensor:
        """As calling, on a tensor (N, 3, H, W) in [0, 1]; returns one on the CPU."""
        StylizeConfig(strength=strength, size=size)  # refuses what is out of range
        weights = self._style(style)
        height, width = pixels.shape[-2:]
        if size is not None:
            height, width = images.scaled_size(height, width, size / max(height, width))
        self._check_memory(height, width)
        pixels = images.resize(pixels, size=(height, width))
        outputs = []
        for photograph in torch.split(pixels, 1):  # one at a time: a batch would gain nothing and take the memory
            x = photograph.to(self.device, memory_format=torch.channels_last)
            y = self.network(x, weights).clamp_(0, 1)
            if not y.isfinite().all():
                raise CheckpointError(
                    "The network gave values that are not numbers: its file is damaged, get it again."
                )
            if keep_colors:
                y = (x + luma(y) - luma(x)).clamp_(0, 1)
            if strength < 1:
                y = torch.lerp(x, y, strength)
            outputs.append(y.cpu().contiguous())
        return torch.cat(outputs)

    def _style(self, name: str | None) -> Tensor:
        styles = self.card.styles
        if name is not None and name not in styles:
            raise ConfigError(
                f"This network has no style {name!r}; it has {', '.join(styles) or 'one without a name'}."
            )
        weights = torch.zeros(1, self.network.styles, device=self.device)
        weights[0, styles.index(name) if name is not None else 0] = 1
        return weights

    def _check_memory(self, height: int, width: int) -> None:
        """Say beforehand that an image will not fit: the operating system's way is to kill the process."""
        needed, free = self.network.memory(height, width), free_memory(self.device)
        if needed > free:
            side = int(max(height, width) * (free / needed) ** 0.5 * 0.95)
            raise ImageError(
                f"An image of {width} x {height} px needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} "
                f"GB are free: make it smaller, for instance with --size {side}."
            )


@dataclass(frozen=True)
class Outcome:
    """What became of one input file: written, skipped because its output exists, or failed with a reason."""

    source: Path
    target: Path
    skipped: bool = False
    error: str | None = None


def plan_outputs(inputs: Sequence[str | Path], out: str | Path) -> list[tuple[Path, Path]]:
    """Pair every image that `inputs` name (files, folders, globs) with the file to write.

    One input *file* and an `out` with an image suffix: that file. Otherwise `out` is a folder that mirrors the
    inputs' tree; formats that are read but not written (GIF, PPM ...) become PNG. What a folder or
    glob finds below `out` are outputs of an earlier run, not inputs.

    Raises:
        ImageError: an input matches nothing, or several images would go to one output file.
        OutputError: an output would overwrite its input.
    """
    out = Path(out).expanduser()
    inputs = [os.path.expanduser(entry) for entry in inputs]
    found = images.find(inputs)
    single = len(inputs) == 1 and os.path.isfile(inputs[0]) and len(found) == 1
    if single and out.suffix and not os.path.isdir(out):
        if out.suffix.lower() not in images.WRITABLE_SUFFIXES:
            raise OutputError(
                f"{out} ends in no format to write: choose {', '.join(sorted(images.WRITABLE_SUFFIXES))}."
            )
        pairs = [(found[0].path, out)]
    else:
        if out.suffix.lower() in images.IMAGE_SUFFIXES and not os.path.isdir(out) and not single:
            raise OutputError(f"{len(found)} images cannot go to the one file {out}: give a folder to write to.")
        if os.path.isfile(out):
            raise OutputError(f"{out} is a file: give a folder to write to.")
        named = {os.path.abspath(entry) for entry in inputs if os.path.isfile(entry)}
        earlier = [
            f for f in found if out.resolve() in f.path.resolve().parents and os.path.abspath(f.path) not in named
        ]
        pairs = [(f.path, out / _writable(f.relative)) for f in found if f not in earlier]
        if not pairs:
            raise ImageError(f"All images given lie in the output folder {out}: give other images or another folder.")
    _refuse_clashes(pairs)
    return pairs


def _refuse_clashes(pairs: Sequence[tuple[Path, Path]]) -> None:
    seen: dict[str, Path] = {}
    for source, target in pairs:
        key = os.path.normcase(os.path.abspath(target))
        if source.resolve() == target.resolve():
            raise OutputError(f"The output {target} would overwrite its input: choose another -o.")
        if key in seen:
            raise ImageError(f"{seen[key]} and {source} would both be written to {target}: write them to two folders.")
        seen[key] = source


def _writable(path: Path) -> Path:
    return path if path.suffix.lower() in images.WRITABLE_SUFFIXES else path.with_suffix(".png")


def convert_files(
    pairs: Sequence[tuple[Path, Path]], convert: Callable[[Tensor], Tensor], *, skip_existing: bool = False
) -> Iterator[Outcome]:
    """Read, convert and write each pair in turn; a file that fails is reported in its Outcome and the rest go on.

    convert: (1, 3, H, W) -> (1, 3, h, w), both in [0, 1]. Profile, EXIF and alpha of the input are kept.
    """
    for source, target in pairs:
        if skip_existing and target.exists():
            yield Outcome(source, target, skipped=True)
            continue
        try:
            picture = images.read(source)
            images.write(target, replace(picture, pixels=convert(picture.pixels)))
            yield Outcome(source, target)
        except PerceptualError as error:
            text = str(error)
            yield Outcome(source, target, error=text if str(source) in text else f"{source}: {text}")
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            yield Outcome(source, target, error=f"{source} does not fit into memory: make it smaller with --size.")
