"""The folder of the page: results, the user's styles and upscaling networks, and uploads.

File names are made safe by `plain_name`.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from perceptual import images
from perceptual.checkpoints import gallery
from perceptual.errors import ConfigError, OutputError
from perceptual.files import check_folder, write_beside

UPSCALERS = (".pth", ".pt", ".safetensors")
"""Endings of the files of upscaling networks, of perceptual or of other programs."""
SHOWN = 500
"""Maximum number of images for display that are kept."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{k}" for port in ("com", "lpt") for k in range(1, 10))}


def plain_name(text: str, *, otherwise: str = "picture") -> str:
    """Make a safe file name without an ending from any text: letters, digits, "-" and "_", at most 60 characters.

    otherwise: the name if nothing is left of the text.
    """
    name = re.sub(r"[^\w-]+", "_", text).strip("_-")[:60].strip("_-")
    return f"{name}_" if name.lower() in _RESERVED else name or otherwise


class Folder:
    """The folder that the page writes to.

    Attributes: `path`, the folder; `results`, `styles`, `upscalers` and `uploads`, its subfolders. `uploads` is emptied
    when the server starts and when it ends.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.results, self.styles, self.uploads = (self.path / name for name in ("results", "styles", "uploads"))
        self.upscalers = self.path / "upscalers"
        for folder in (self.results, self.styles, self.upscalers):
            check_folder(folder)
        self.clear_uploads()
        check_folder(self.uploads)
        self._lock, self._taken, self._shown = threading.Lock(), set[Path](), 0

    def clear_uploads(self) -> None:
        """Delete all uploaded files."""
        if self.uploads.is_symlink():
            raise OutputError(f"{self.uploads} is a link: choose another --folder.")
        shutil.rmtree(self.uploads, ignore_errors=True)

    def new(self, name: str, ending: str) -> Path:
        """A new path in `results`: name.png, name_2.png and so on. Each call returns a different path.

        name: any text. ending: the file ending, such as ".png".
        """
        stem, count = plain_name(name), 1
        with self._lock:
            path = self.results / f"{stem}{ending}"
            while path in self._taken or os.path.lexists(path):
                count += 1
                path = self.results / f"{stem}_{count}{ending}"
            self._taken.add(path)
        return path

    def show(self, pixels: Tensor) -> str:
        """Write an image (1, 3, H, W), in [0, 1] or uint8 levels, as a JPEG for the page. Returns its path.

        Only the last SHOWN files are kept. Gradio would write WebP, which takes 20 times as long.
        """
        with self._lock:
            self._shown += 1
            folder, number = self.uploads / "shown", self._shown
        path = folder / f"{number}.jpg"
        folder.mkdir(exist_ok=True)
        path.write_bytes(images.as_jpeg(pixels))
        (folder / f"{number - SHOWN}.jpg").unlink(missing_ok=True)
        return str(path)

    def style(self, name: str) -> Path:
        """The file of a style of the user, by name."""
        return self.styles / f"{plain_name(name, otherwise='style')}.safetensors"

    def own_styles(self) -> dict[str, Path]:
        """The finished styles of the user: {name: file}."""
        return {path.stem: path for path in sorted(self.styles.glob("*.safetensors")) if path.is_file()}

    def unfinished(self) -> list[str]:
        """Names of the user's styles with an unfinished training: it was stopped, or has not started yet."""
        waiting = {path.stem for path in self.styles.glob("*.run") if not path.with_suffix(".safetensors").exists()}
        return sorted(waiting | {path.stem for path in self.styles.glob("*.state")})

    def rename(self, old: str, new: str) -> str:
        """Rename a style of the user and all its files. Returns the new name.

        Raises:
            ConfigError: there is no such style, or the new name is empty or used already.
        """
        source, target = self.style(old), self.style(new)
        if not source.is_file():
            raise ConfigError(f"There is no own style {old!r}: choose one from the list.")
        if not new.strip():
            raise ConfigError("Write the new name first.")
        if target == source:
            return target.stem
        if target.stem in gallery() or any(
            os.path.lexists(target.with_name(target.stem + each.name[len(source.stem) :])) for each in self._files(old)
        ):
            raise ConfigError(f"There is a style {target.stem!r} already: choose another name.")
        for path in self._files(old):
            path.rename(path.with_name(target.stem + path.name[len(source.stem) :]))
        return target.stem

    def delete(self, name: str) -> None:
        """Delete a style of the user, and its training state, log and previews.

        Raises:
            ConfigError: there is no such style.
        """
        files = self._files(name)
        if not files:
            raise ConfigError(f"There is no own style {name!r}: choose one from the list.")
        for path in files:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _files(self, name: str) -> list[Path]:
        """The files of a style of the user: network, state, log, settings, previews, painting, photos."""
        stem = self.style(name).stem
        return [path for path in self.styles.iterdir() if path.name.partition(".")[0] == stem]

    def own_upscaler(self, name: str) -> Path:
        """The file of an upscaling network that the user added.

        Raises:
            ConfigError: it was removed.
        """
        if (path := self.own_upscalers().get(name)) is None:
            raise ConfigError(f"There is no network {name!r} any more: choose another one.")
        return path

    def own_upscalers(self) -> dict[str, Path]:
        """The upscaling networks that the user added: {name with its ending: file}."""
        return {path.name: path for path in sorted(self.upscalers.iterdir()) if path.suffix.lower() in UPSCALERS}

    def add_upscaler(self, source: str | Path) -> str:
        """Copy the file of an upscaling network to `upscalers`. Returns its name.

        Raises:
            ConfigError: there is a network with this name already.
            OutputError: the file cannot be written.
        """
        name = plain_name(Path(source).stem, otherwise="network") + Path(source).suffix.lower()
        target = self.upscalers / name
        if os.path.lexists(target):
            raise ConfigError(f"There is a network {name!r} already: rename one of the two files.")
        with write_beside(target) as temporary:
            shutil.copyfile(source, temporary)
        return name

    def keep(self, source: str | Path, name: str) -> Path:
        """Copy an uploaded file to `styles` as NAME.painting, with the ending of the upload. Returns the new path.

        Raises:
            OutputError: the file cannot be written.
        """
        ending = re.sub(r"[^\w.]", "", Path(source).suffix.lower())[:10]
        target = self.styles / f"{plain_name(name)}.painting{ending}"
        with write_beside(target) as temporary:
            shutil.copyfile(source, temporary)
        return target

    def zip(self, files: Iterable[Path], name: str) -> Path:
        """Write files to a new ZIP file in `results`. Returns its path.

        Raises:
            OutputError: the file cannot be written.
        """
        target = self.new(name, ".zip")
        with write_beside(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for path in files:
                archive.write(path, path.name)  # not compressed, because image files are compressed already
        return target


def paths_of(files: str | Sequence[str] | None) -> list[Path]:
    """The paths of a file field of the page."""
    return [Path(each) for each in ([files] if isinstance(files, str) else files or [])]
