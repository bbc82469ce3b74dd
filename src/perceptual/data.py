"""Training pictures: any folder of images as an endless, shuffled stream of square crops.

Picture number k of the stream is a function of the seed and k alone: the order, the crop and the flip. So a run resumed
at step s reads exactly what it would have read, whatever the number of worker processes, and no reader state is saved.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from perceptual import images
from perceptual.codecs import Array
from perceptual.config import TrainConfig
from perceptual.errors import DataError, ImageError

_FLIP_LEFT_RIGHT, _BICUBIC = 0, 3  # Pillow's own numbers; only `images` and `codecs` import Pillow


class Photographs(Dataset[tuple[Tensor, list[str]]]):
    """Crops of the images below `folder`: item k is ((3, size, size) float32 in [0, 1], paths that could not be read).

    leave_out: files and folders below it that are not photographs to learn from, such as the run's own previews.

    A file that cannot be read is replaced by the next one in the order of that epoch, and named in the second part.

    Raises:
        DataError: the folder is missing or holds no image; when read, that no image at all can be read.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        *,
        seed: int = 0,
        crop: str = "random",
        leave_out: Collection[str | Path] = (),
    ) -> None:
        if not os.path.isdir(folder):
            raise DataError(f"The data folder {folder} is not there, or no folder: give a folder of photographs.")
        try:
            found = [image.path for image in images.find([folder])]
        except ImageError as error:
            raise DataError(f"The data folder {folder} holds no image: give a folder of photographs.") from error
        out = {Path(os.path.realpath(path)) for path in leave_out}
        real = {path: Path(os.path.realpath(path)) for path in found}
        self.paths = [path for path in found if out.isdisjoint([real[path], *real[path].parents])]
        if not self.paths:
            raise DataError(f"The data folder {folder} holds nothing but the style images: give one of photographs.")
        self.size, self.seed, self.crop = size, seed, crop
        self._order: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def order(self, epoch: int) -> list[int]:
        """The shuffled order of the files in an epoch."""
        if self._order is None or self._order[0] != epoch:
            indices = list(range(len(self.paths)))
            random.Random(f"order {self.seed} {epoch}").shuffle(indices)
            self._order = (epoch, indices)
        return self._order[1]

    def __getitem__(self, k: int) -> tuple[Tensor, list[str]]:
        epoch, position = divmod(k, len(self.paths))
        order = self.order(epoch)
        unreadable: list[str] = []
        for offset in range(len(order)):
            path = self.paths[order[(position + offset) % len(order)]]
            try:
                return self._cut(path, random.Random(f"crop {self.seed} {k}")), unreadable
            except ImageError:
                unreadable.append(str(path))
        raise DataError(
            f"None of the {len(order)} images in the data folder can be read: {unreadable[0]} is the first."
        )

    def _cut(self, path: Path, rng: random.Random) -> Tensor:
        native = self.crop == "native"
        image = images.open_rgb(path, draft_size=4 * self.size if native else round(1.15 * self.size))
        if native:
            return _native(np.array(image), self.size, rng)
        width, height = image.size
        if self.crop == "squash":
            box: tuple[float, float, float, float] = (0, 0, width, height)
        else:
            side = min(width, height) / rng.uniform(1, 1.15)
            left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
            box = (left, top, left + side, top + side)
        image = image.resize((self.size, self.size), _BICUBIC, box=box, reducing_gap=2.0)
        if rng.random() < 0.5:
            image = image.transpose(_FLIP_LEFT_RIGHT)  # type: ignore[arg-type]
        return _tensor(np.array(image))


def _native(array: Array, size: int, rng: random.Random) -> Tensor:
    """A crop at the picture's own resolution, flipped and turned at random; a small picture is continued in mirrors."""
    short = [max(0, size - side) for side in array.shape[:2]]
    if any(short):
        array = np.pad(array, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    top, left = (rng.randint(0, side - size) for side in array.shape[:2])
    array = np.rot90(array[top : top + size, left : left + size], rng.randrange(4))
    return _tensor(np.ascontiguousarray(array[:, ::-1] if rng.random() < 0.5 else array))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float() / 255


def batches(
    dataset: Photographs, config: TrainConfig, *, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Any]:
    """Yield ((batch, 3, size, size), unreadable paths) for the steps from `start` to the last of `config`.

    rank, world: this process and the number of processes; each reads its own share of every step.
    """

    def indices() -> Iterator[int]:
        for step in range(start, config.steps):
            first = (step * world + rank) * config.batch
            yield from range(first, first + config.batch)

    loader = DataLoader(
        dataset,
        batch_size=config.batch,
        sampler=indices(),
        num_workers=min(config.workers, _processors()),
        collate_fn=_collate,
        worker_init_fn=_ignore_interrupts,
    )
    try:
        yield from loader
    except DataError as error:  # a worker's error arrives with its traceback as text
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; only the main one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate(items: list[tuple[Tensor, list[str]]]) -> tuple[Tensor, list[str]]:
    return torch.stack([pixels for pixels, _ in items]), [path for _, bad in items for path in bad]
