"""The networks of the page. Each is loaded once. Also makes quick previews of their results."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.apply import Model, Stylizer, Upscaler
from perceptual.checkpoints import shipped
from perceptual.config import PaintOptions
from perceptual.errors import ConfigError, PerceptualError
from perceptual.studio.folder import UPSCALERS, Folder

GALLERY = "gallery"
PAINTED_SIDE = 576
"""Longer side in pixels of an image with strokes of size 1, in the page."""
THUMBNAIL = 224
"""Longer side in pixels of the small images, one for each style."""
MAGNIFIED, AROUND = 512, 32
"""Side in pixels of an enlarged part, and width in pixels of the margin that is computed with it."""
_KEPT_BYTES, _KEPT_MODELS = 400_000_000, 24

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Paint:
    """The settings for painting a photo in the page.

    styles: {name of a style: weight above 0}, at least one. strength: 0 to 1. strokes: size of the strokes, 0.25 to 4;
    1 is the size on an image of 576 px. keep_colors: keep the colours of the photo. size: longer side of the result in
    pixels; None for that of the photo.
    """

    styles: Mapping[str, float] = field(default_factory=lambda: {"starry_night": 1.0})
    strength: float = 1.0
    strokes: float = 1.0
    keep_colors: bool = False
    size: int | None = None

    def options(self, height: int, width: int) -> PaintOptions:
        """The options of `Stylizer` for a photo of this height and width in pixels."""
        longer = self.size or max(height, width)
        scale = min(16.0, max(0.0625, self.strokes * max(1.0, longer / PAINTED_SIDE)))
        return PaintOptions(
            strength=self.strength, keep_colors=self.keep_colors, size=self.size, style_scale=round(scale, 3)
        )


class Models:
    """Loads networks, keeps them, and makes previews. All methods may be called from any thread.

    folder: contains the user's styles and upscaling networks. device: as in `Stylizer`. max_pixels: maximum number of
    pixels of an image.
    """

    def __init__(self, folder: Folder, *, device: str = "auto", max_pixels: int = images.MAX_PIXELS) -> None:
        self.folder, self.device, self.max_pixels = folder, device, max_pixels
        self._models: OrderedDict[object, Model[Any]] = OrderedDict()
        self._photos: OrderedDict[object, Tensor] = OrderedDict()
        self._busy = threading.RLock()
        self._closed = False

    def close(self) -> None:
        """Wait for the current preview, and refuse new ones: a thread that still computes can crash Python at exit."""
        with self._busy:
            self._closed = True

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Generator[None, None, None]:
        """Make one preview at a time, because two at once are not faster.

        Raises:
            ConfigError: the page is closed.
        """
        with self._busy:
            if self._closed:
                raise ConfigError("The studio was ended: start `perceptual studio` again.")
            yield

    @functools.cached_property
    def _shipped(self) -> dict[str, str]:
        """{name: title} of the shipped styles. Their cards are read once, because every preview needs the names."""
        files = shipped.gallery()
        return {name: checkpoints.read_card(file).titles.get(name, "") for name, file in files.items()}

    def styles(self) -> dict[str, str]:
        """{name: title} of the shipped styles, then of the user's styles."""
        return {**self._shipped, **{name: "your own style" for name in self.folder.own_styles()}}

    def text(self, styles: Mapping[str, float]) -> str:
        """The styles as text for `Stylizer.load` and --style. The user's styles are given as files.

        Raises:
            ConfigError: no style is given, or there is no such style.
        """
        own = self.folder.own_styles()
        known = self.styles()
        if not styles:
            raise ConfigError("Choose a style first.")
        if unknown := [name for name in styles if name not in known]:
            raise ConfigError(f"There is no style {unknown[0]!r} any more: choose another one.")
        names = {str(own[name]) if name in own else name: weight for name, weight in styles.items()}
        if len(names) == 1:
            return next(iter(names))
        return ",".join(f"{name}:{weight:.2f}" for name, weight in names.items())

    def stylizer(self, styles: Mapping[str, float], *, video: bool = False) -> Stylizer:
        """The network for one style or a blend.

        video: as `Stylizer.load`.

        Raises:
            ConfigError: no style or an unknown style is given, or the styles belong to different networks.
        """
        text = self.text(styles)
        own = self.folder.own_styles()
        stamps = tuple(own[name].stat().st_mtime_ns for name in styles if name in own)
        return self._kept(("style", text, video, stamps), lambda: Stylizer.load(text, device=self.device, video=video))

    def upscaler(self, scale: float, loss: str) -> Upscaler:
        """The network for a scale. loss: as in `Upscaler.at_scale`, or the name of a network that the user added.

        Raises:
            ConfigError: there is no network for this scale and loss, or no network of this name any more.
            CheckpointError: the file of the network cannot be used.
        """
        if not loss.endswith(UPSCALERS):
            return self._kept(("upscale", scale, loss), lambda: Upscaler.at_scale(scale, loss, device=self.device))
        path = self.folder.own_upscaler(loss)
        key = ("network", loss, path.stat().st_mtime_ns)
        own: Upscaler = self._kept(key, lambda: Upscaler.load(path, device=self.device))
        if scale > own.network.scale:
            raise ConfigError(f"{loss} enlarges up to {own.network.scale} times: choose a smaller factor.")
        return Upscaler(own.network, own.card, device=self.device, copy=False, scale=scale)

    def _kept(self, key: object, load: Callable[[], _T]) -> _T:
        with self._one_at_a_time():
            if key not in self._models:
                self._models[key] = load()  # type: ignore[assignment]
                while len(self._models) > _KEPT_MODELS:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]  # type: ignore[return-value]

    def photo(self, path: Path, side: int) -> Tensor:
        """Read a photo as uint8 levels (1, 3, H, W), scaled down to a longer side of `side` pixels. Results are cached.

        Raises:
            ImageError: the file cannot be read.
        """
        key = (path, path.stat().st_mtime_ns if path.exists() else 0, side)
        with self._busy:
            if key in self._photos:
                self._photos.move_to_end(key)
                return self._photos[key]
        image = images.open_rgb(path, draft_size=side, max_pixels=self.max_pixels)
        if max(image.size) > side:
            image.thumbnail((side, side))
        levels = (images.from_any(image) * 255).round().byte()
        with self._busy:
            self._photos[key] = levels
            while len(self._photos) > 1 and sum(each.numel() for each in self._photos.values()) > _KEPT_BYTES:
                self._photos.popitem(last=False)
        return levels

    def wall(self, path: Path) -> Iterator[tuple[str, Tensor]]:
        """Paint a photo in every style at a small size. Yields (style, uint8 levels (1, 3, h, w))."""
        photo = self.photo(path, THUMBNAIL)
        for name in self.styles():
            yield name, self._painted(photo, {name: 1.0}, PaintOptions())

    def preview(self, path: Path, choice: Paint) -> Tensor:
        """Paint a photo at a reduced size, in a fraction of a second: uint8 levels (1, 3, h, w).

        The size of the strokes, relative to the image, is the same as at full size.
        """
        longer = choice.size or max(self.size(path))
        side = max(16, min(PAINTED_SIDE, round(min(longer, PAINTED_SIDE) / choice.strokes)))
        options = replace(choice.options(side, side), style_scale=1.0, size=None)
        return self._painted(self.photo(path, side), choice.styles, options)

    def _painted(self, photo: Tensor, styles: Mapping[str, float], options: PaintOptions) -> Tensor:
        """Paint uint8 levels (1, 3, H, W). All shipped styles are in one network, which is loaded once."""
        with self._one_at_a_time():
            gallery = self._kept(GALLERY, lambda: Stylizer.load(GALLERY, device=self.device))
            own = self.folder.own_styles()
            if all(name in gallery.styles and name not in own for name in styles):
                return gallery.stylize(photo, options, style=self.text(styles))
            return self.stylizer(styles).stylize(photo, options)

    def warm_up(self) -> None:
        """Load the gallery and paint a small image, so that the first preview is quick."""
        with contextlib.suppress(PerceptualError):
            self._painted(torch.zeros(1, 3, THUMBNAIL, THUMBNAIL, dtype=torch.uint8), {"wave": 1.0}, PaintOptions())

    def frame(self, pixels: Tensor, choice: Paint) -> Tensor:
        """Paint one frame of a video, uint8 levels (1, 3, H, W), at its size. `strokes` and `size` are ignored."""
        stylizer = self.stylizer(choice.styles, video=True)
        with self._one_at_a_time():
            return stylizer.stylize(pixels, strength=choice.strength, keep_colors=choice.keep_colors)

    def enlarged(self, pixels: Tensor, scale: float, loss: str, whole: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Enlarge uint8 levels (1, 3, H, W) by bicubic interpolation and by a network. Arguments as in `upscaler`.

        whole: the image that `pixels` are a part of; loss auto looks at it.
        """
        upscaler = self.upscaler(scale, loss).for_picture(pixels if whole is None else whole)
        with self._one_at_a_time():
            by_network = upscaler.upscale(pixels)
        size = (by_network.shape[-2], by_network.shape[-1])
        return images.resize(pixels, size=size), by_network

    def size(self, path: Path) -> tuple[int, int]:
        """Height and width of a photo after its EXIF rotation, from the file header.

        Raises:
            ImageError: the file is not an image, or the image is too large.
        """
        return images.size_of(path, max_pixels=self.max_pixels)

    def magnified(self, path: Path, centre: tuple[float, float], scale: float, loss: str) -> tuple[Tensor, Tensor]:
        """Enlarge a part of an image by bicubic interpolation and by a network: two uint8 levels (1, 3, h, w).

        The part is computed with a margin, so that it is the same as in the whole image.

        centre: the centre of the part, as shares of height and width, 0 to 1. scale, loss: as in `upscaler`.
        """
        picture = self.photo(path, max(self.size(path)))
        sides = [min(length, max(8, round(MAGNIFIED / scale))) for length in picture.shape[-2:]]
        first = [
            min(length - side, max(0, round(place * length - side / 2)))
            for place, length, side in zip(centre, picture.shape[-2:], sides, strict=True)
        ]
        start = [max(0, at - AROUND) for at in first]
        stop = [at + side + AROUND for at, side in zip(first, sides, strict=True)]
        both = self.enlarged(picture[..., start[0] : stop[0], start[1] : stop[1]], scale, loss, picture)
        top, left = (round((at - begin) * scale) for at, begin in zip(first, start, strict=True))
        height, width = (round(side * scale) for side in sides)
        return tuple(each[..., top : top + height, left : left + width] for each in both)  # type: ignore[return-value]
