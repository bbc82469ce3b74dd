"""Training photos that stay decoded in memory: for GPUs that are faster than the processes that read photos.

Every photo is read once. Its pixels are kept on the device of the training, as bytes, and the crops are cut there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perceptual import images
from perceptual.data import Photographs, draft_size
from perceptual.functional import Array

AHEAD = 256
"""Number of photos that are read before they are needed."""
READERS = 16
"""Number of threads that read photos. Pillow decodes without Python's lock."""


class KeptPhotographs(Photographs):
    """The stream of `Photographs` from photos that are kept on a device, as `batches` reads it.

    The files, the random numbers and the rules are the same. With crop "native" the crops are equal. The others are cut
    at whole pixels and reduced by PyTorch, so they differ a little from Pillow's. Photos are kept with a shorter side
    of at most 1.15 times the crop, except for "native".

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
        ahead = list(islice(indices, AHEAD))
        with ThreadPoolExecutor(READERS, "photos") as readers:
            for k in ahead:
                self._read_ahead(k, readers)
            while len(ahead) >= count:
                items = [self[k] for k in ahead[:count]]
                more = list(islice(indices, count))
                for k in more:
                    self._read_ahead(k, readers)
                ahead = [*ahead[count:], *more]
                yield torch.stack([pixels for pixels, _ in items]), [path for _, bad in items for path in bad]

    def _read_ahead(self, k: int, readers: ThreadPoolExecutor) -> None:
        epoch, position = divmod(k, len(self.paths))
        path = self.paths[self.order(epoch)[position]]
        if path not in self._kept and path not in self._coming:
            self._coming[path] = readers.submit(self._read, path)

    def _read(self, path: Path) -> Array:
        """The pixels of a photo, uint8 (H, W, 3)."""
        image: Any = images.open_rgb(path, draft_size=draft_size(self.crop, self.size))
        shorter = round(1.15 * self.size)
        if self.crop != "native" and min(image.size) > shorter:
            width, height = (round(side * shorter / min(image.size)) for side in image.size)
            image = image.resize((width, height), resample=3, reducing_gap=2.0)  # 3: bicubic
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


def _native(picture: Tensor, size: int, rng: random.Random) -> Tensor:
    """The crop of `data`'s _native, of a tensor (3, H, W)."""
    for axis in (1, 2):
        while (length := picture.shape[axis]) < size:
            more = picture.flip(axis).narrow(axis, 0, min(length, size - length))
            picture = torch.cat([picture, more], axis)
    top, left = (rng.randint(0, side - size) for side in picture.shape[1:])
    picture = torch.rot90(picture[:, top : top + size, left : left + size], rng.randrange(4), (1, 2))
    return (picture.flip(2) if rng.random() < 0.5 else picture).contiguous().float() / 255
