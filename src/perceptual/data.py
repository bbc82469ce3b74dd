"""Training data: any folder of images as an endless, shuffled stream of square crops.

Item k of the stream (which file, which crop, which flip) depends only on the seed and on k. A run that is resumed at
step s therefore reads the same data as an uninterrupted run, for any number of worker processes, and no state of the
reader needs to be saved.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from perceptual import images
from perceptual.cache import usable_processors
from perceptual.config import TrainConfig
from perceptual.errors import ConfigError, DataError, ImageError
from perceptual.functional import CPU, Array
from perceptual.images import finding

FLAT = 0.5 / 255
"""Standard deviation below which a crop counts as a single colour: half a level of 0..255."""
AHEAD = 256
"""Number of photos that are read before they are needed."""
READERS = 16
"""Number of threads that read photos. Pillow decodes without Python's lock."""
_FLIP_LEFT_RIGHT, _BICUBIC = 0, 3  # Pillow's constants; only the package `images` imports Pillow


class Photographs(Dataset[tuple[Tensor, list[str]]]):
    """Crops of the images in a folder and its subfolders. Item k is (crop (3, size, size), float32 in [0, 1]; list of
    skipped paths).

    A file that cannot be read, or a flat crop, is skipped: the next file in the order of the epoch takes its place, and
    its path is added to the list.

    Args:
        folder: the folder of photos.
        size: side of the crops in pixels.
        seed: seed of the order, the crops and the flips.
        crop: "random", "squash" or "native", see `TrainConfig.crop`.
        leave_out: files and folders to ignore, such as the paintings. Previews of training runs are always ignored.
        skip_flat: skip crops of a single colour. Instance normalisation divides by their standard deviation of zero in
            every layer, so their gradients overflow.

    Attributes: `names`, the files in order, as paths relative to the folder with forward slashes. They identify the
    stream.

    Raises:
        DataError: the folder is missing or has no images; or, when an item is read, no image can be used.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int,
        *,
        seed: int = 0,
        crop: str = "random",
        leave_out: Collection[str | Path] = (),
        skip_flat: bool = False,
    ) -> None:
        if not os.path.isdir(folder):
            raise DataError(f"The data folder {folder} is missing or not a folder: give a folder of photos.")
        try:
            found = finding.find([folder])
        except ImageError as error:
            raise DataError(f"The data folder {folder} contains no images: give a folder of photos.") from error
        out = {Path(os.path.realpath(path)) for path in leave_out}
        real = [Path(os.path.realpath(file.path)) for file in found]
        kept = [file for file, place in zip(found, real, strict=True) if out.isdisjoint([place, *place.parents])]
        kept = [file for file in kept if not _is_preview(file.relative)]
        self.paths, self.names = [file.path for file in kept], [file.relative.as_posix() for file in kept]
        if not self.paths:
            raise DataError(
                f"The data folder {folder} contains only style images and previews of runs: give a folder of photos."
            )
        self.folder, self.size, self.seed, self.crop = Path(folder), size, seed, crop
        self.skip_flat = skip_flat
        self._order: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def order(self, epoch: int) -> list[int]:
        """The shuffled order of the files in an epoch, as indices into `names`."""
        if self._order is None or self._order[0] != epoch:
            indices = list(range(len(self.paths)))
            random.Random(f"order {self.seed} {epoch}").shuffle(indices)
            self._order = (epoch, indices)
        return self._order[1]

    def difference(self, was: object) -> str | None:
        """Describe how these photos differ from those of an earlier run; None if they are the same.

        was: `names` of the earlier run.
        """
        if not isinstance(was, list):
            return "the saved state does not list its photos"
        if was == self.names:
            return None
        pairs = itertools.zip_longest(was, self.names)
        before, now = next((before, now) for before, now in pairs if before != now)
        if before is not None and before not in self.names:
            detail = f"the first missing photo is {before}"
        elif now is not None and now not in was:
            detail = f"the first new photo is {now}"
        else:
            detail = f"their order differs from {now or before} on"
        return f"there were {len(was)} photos and there are {len(self)} now; {detail}"

    def __getitem__(self, k: int) -> tuple[Tensor, list[str]]:
        epoch, position = divmod(k, len(self.paths))
        order = self.order(epoch)
        unreadable: list[str] = []
        for offset in range(len(order)):
            path = self.paths[order[(position + offset) % len(order)]]
            try:
                crop = self._cut(path, random.Random(f"crop {self.seed} {k}"))
            except ImageError:
                unreadable.append(str(path))
                continue
            if not self.skip_flat or float(crop.std((1, 2), correction=0).max()) >= FLAT:
                return crop, unreadable
            unreadable.append(str(path))
        problem = "has more than one colour" if self.skip_flat else "can be read"
        raise DataError(f"None of the {len(order)} images in the data folder {problem}: {unreadable[0]} is the first.")

    def _cut(self, path: Path, rng: random.Random) -> Tensor:
        image = images.open_rgb(path, draft_size=draft_size(self.crop, self.size))
        if self.crop == "native":
            return _native(torch.from_numpy(np.array(image)).permute(2, 0, 1), self.size, rng)
        width, height = image.size
        if self.crop == "squash":
            box: tuple[float, float, float, float] = (0, 0, width, height)
        else:
            side = min(width, height) / rng.uniform(1, 1.15)
            left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
            box = (left, top, left + side, top + side)
        image = image.resize((self.size, self.size), _BICUBIC, box=box, reducing_gap=2.0)
        if rng.random() < 0.5:  # departure from the paper, which does not say that it flips
            image = image.transpose(_FLIP_LEFT_RIGHT)  # type: ignore[arg-type]
        return _tensor(np.array(image))


def sample_photos(names: Sequence[str], missing: str) -> list[Tensor]:
    """Sample photos that are installed with scikit-image, each (1, 3, H, W) in [0, 1].

    names: of functions in `skimage.data`, such as "astronaut". missing: the message if scikit-image is not installed.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise ConfigError(missing) from error
    return [images.from_any(getattr(data, name)()) for name in names]


def _is_preview(path: Path) -> bool:
    """Whether a file is a picture that a training run or a search wrote."""
    return path.name.endswith(".search.png") or any(folder.name.endswith(".previews") for folder in path.parents)


def draft_size(crop: str, size: int) -> int:
    """The shorter side in pixels to which a large JPEG may be halved while it is read, for crops of `size`.

    Departure from the paper, which does not halve photos.
    """
    return 4 * size if crop == "native" else round(1.15 * size)


def _native(picture: Tensor, size: int, rng: random.Random) -> Tensor:
    """A crop of (3, H, W) in uint8 at the original resolution, flipped and rotated at random, in [0, 1]. A small image
    is extended by mirroring.

    Departure from the paper, which does not say that it flips or rotates.
    """
    for axis in (1, 2):
        while (length := picture.shape[axis]) < size:
            more = picture.flip(axis).narrow(axis, 0, min(length, size - length))
            picture = torch.cat([picture, more], axis)
    top, left = (rng.randint(0, side - size) for side in picture.shape[1:])
    picture = torch.rot90(picture[:, top : top + size, left : left + size], rng.randrange(4), (1, 2))
    return (picture.flip(2) if rng.random() < 0.5 else picture).contiguous().float() / 255


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float() / 255


class KeptPhotographs(Photographs):
    """The stream of `Photographs` from photos that stay decoded on a device, for a GPU that waits for photos.

    The files, the random numbers and the rules are the same. With crop "native" the crops are equal. The others are cut
    at whole pixels and resized by PyTorch, so they differ a little from Pillow's. Photos are kept with a shorter side
    of at most 1.15 times the crop, except for "native". Each is read once.

    device: where the crops are made. It needs 3 bytes for each pixel of each photo.
    """

    def __init__(self, photographs: Photographs, device: torch.device) -> None:
        vars(self).update(vars(photographs))
        self.device = device
        self._kept: dict[Path, Tensor] = {}
        self._coming: dict[Path, Future[Array]] = {}

    def batches(self, indices: Iterator[int], count: int) -> Iterator[tuple[Tensor, list[str]]]:
        """Yield (batch (count, 3, size, size) in [0, 1] on the device, list of skipped paths) for these items.

        Raises:
            DataError: no image can be used.
        """
        ahead = list(itertools.islice(indices, max(AHEAD, 2 * count)))
        with ThreadPoolExecutor(READERS, "photos") as readers:
            for k in ahead:
                self._read_ahead(k, readers)
            while len(ahead) >= count:
                items = [self[k] for k in ahead[:count]]
                more = list(itertools.islice(indices, count))
                for k in more:
                    self._read_ahead(k, readers)
                ahead = [*ahead[count:], *more]
                yield _collate(items)

    def _read_ahead(self, k: int, readers: ThreadPoolExecutor) -> None:
        epoch, position = divmod(k, len(self.paths))
        path = self.paths[self.order(epoch)[position]]
        if path not in self._kept and path not in self._coming:
            self._coming[path] = readers.submit(self._read, path)

    def _read(self, path: Path) -> Array:
        """The pixels of a photo, uint8 (H, W, 3)."""
        shorter = draft_size(self.crop, self.size)
        image: Any = images.open_rgb(path, draft_size=shorter)
        if self.crop != "native" and min(image.size) > shorter:
            width, height = (round(side * shorter / min(image.size)) for side in image.size)
            image = image.resize((width, height), resample=_BICUBIC, reducing_gap=2.0)
        return np.array(image)

    def _picture(self, path: Path) -> Tensor:
        """The pixels of a photo on the device, uint8 (3, H, W)."""
        if path not in self._kept:
            coming = self._coming.pop(path, None)
            array = coming.result() if coming else self._read(path)
            self._kept[path] = torch.from_numpy(array).to(self.device).permute(2, 0, 1).contiguous()
        return self._kept[path]

    def _cut(self, path: Path, rng: random.Random) -> Tensor:
        picture = self._picture(path)
        if self.crop == "native":
            return _native(picture, self.size, rng)
        height, width = picture.shape[1:]
        top = left = 0
        if self.crop == "random":
            side = min(width, height) / rng.uniform(1, 1.15)
            left, top = (round(rng.uniform(0, length - side)) for length in (width, height))
            picture = picture[:, top : top + round(side), left : left + round(side)]
        crop = F.interpolate(picture[None].float(), size=(self.size, self.size), mode="bicubic", antialias=True)[0]
        if rng.random() < 0.5:
            crop = crop.flip(2)
        return crop.clamp(0, 255) / 255


def batches(
    dataset: Photographs,
    config: TrainConfig,
    *,
    start: int = 0,
    first: int = 0,
    count: int | None = None,
    device: torch.device = CPU,
) -> Iterator[Any]:
    """Yield (batch (count, 3, size, size) in [0, 1], list of skipped paths) for the steps from `start` to the last one.

    config: number of steps, batch size and worker processes. first, count: the part of every step to read, as the
    number of its first photo in the step, from 0, and the number of its photos; default: the whole step. Each of
    several training processes reads its own part. device: where photos are kept, see `TrainConfig.keep_photos`.

    Raises:
        DataError: no image can be used.
    """

    share = count or config.batch

    def indices() -> Iterator[int]:
        for step in range(start, config.steps):
            k = step * config.batch + first
            yield from range(k, k + share)

    if config.keep_photos:
        yield from KeptPhotographs(dataset, device).batches(indices(), share)
        return
    try:
        yield from _loader(dataset, config, indices(), share)
    except DataError as error:  # the error of a worker contains its traceback as text
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None


def _loader(dataset: Photographs, config: TrainConfig, indices: Iterator[int], share: int) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=share,
        sampler=indices,
        num_workers=min(config.workers, usable_processors()),
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_parent,
        pin_memory=torch.cuda.is_available(),  # so that the copy to the GPU does not block
    )


def _leave_signals_to_parent(worker: int) -> None:
    """Ignore, in a worker, signals that ask to stop. A terminal or systemd sends them to all processes, but only the
    main process handles them: it needs its workers until it has stopped.

    Workers end when the main process ends, because PyTorch's loop looks for it. It may also end them by SIGTERM.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    """End this process at a SIGTERM of its parent; ignore others."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _collate(items: list[tuple[Tensor, list[str]]]) -> tuple[Tensor, list[str]]:
    return torch.stack([pixels for pixels, _ in items]), [path for _, bad in items for path in bad]


def square(pixels: Tensor, size: int) -> Tensor:
    """The middle square of an image (1, 3, H, W), scaled to (1, 3, size, size)."""
    side = min(pixels.shape[-2:])
    top, left = ((extent - side) // 2 for extent in pixels.shape[-2:])
    return images.resize(pixels[..., top : top + side, left : left + side], size=(size, size))
