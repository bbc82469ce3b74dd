"""Training of a user's style in the page. The files of each run are kept in one folder, so that it can be resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from perceptual import checkpoints, images
from perceptual.checkpoints import Card
from perceptual.config import Range, StudioConfig, check, from_dict, weight_paths
from perceptual.errors import ConfigError, OutputError
from perceptual.files import write_beside
from perceptual.losses.networks import missing_networks
from perceptual.studio.folder import Folder, plain_name
from perceptual.studio.jobs import Job
from perceptual.studio.studio import Studio

if TYPE_CHECKING:
    from perceptual.tasks.style_recipes import StyleRecipe

BASE = "gallery"
"""The shipped network that the training starts from."""
PREVIEW_EVERY, SAVE_EVERY = 10, 20
"""Steps between two previews, and between two saves of the state."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The user's settings. name: of the style. steps: optimiser steps, 1 to 100,000. style_weight: 0 to 1000."""

    name: str
    steps: Annotated[int, Range(1, 100_000)] = 150
    style_weight: Annotated[float, Range(0, 1000)] = 2.0

    def __post_init__(self) -> None:
        check(self)

    def recipe(self) -> StyleRecipe:
        """The settings of the training: the recipe `own`, which trains only gamma and beta."""
        from perceptual.tasks.style import Style, recipe_from

        recipe = recipe_from(Style.recipe("own"), BASE)
        train = replace(
            recipe.train,
            steps=self.steps,
            style_steps=self.steps,
            preview_every=PREVIEW_EVERY,
            save_every=SAVE_EVERY,
            workers=0,
        )
        return replace(recipe, train=train, loss=replace(recipe.loss, style_weight=self.style_weight))


def missing_weights(config: StudioConfig) -> list[str]:
    """The loss networks that the training needs and that are not on this computer.

    Raises:
        WeightsError: a file of `config.weights` does not exist.
    """
    from perceptual.tasks.style import Style

    return missing_networks(Style.layers(Choice(name="any").recipe()), weight_paths(config.weights))


def prepare(studio: Studio, choice: Choice, painting: Path, photos: Sequence[Path]) -> Path:
    """Copy the painting, the photos and the settings of a run to a new folder, `NAME.run`.

    photos: the training photos. If there are none, the photos of `config.photos` or the sample photos of scikit-image
    are used. Returns the style file that the run will write.

    Raises:
        ConfigError: there are no photos. ImageError: the painting or a photo cannot be read. OutputError: the folder
            cannot be written.
    """
    images.size_of(painting)
    out = _free(studio.folder, choice.name)
    run = run_folder(out)
    try:
        (run / "photos").mkdir(parents=True)
        for k, path in enumerate(photos):
            images.size_of(path)
            shutil.copyfile(path, run / "photos" / f"{k:04}_{plain_name(path.stem)}{path.suffix.lower()}")
        if not photos and studio.config.photos is None:
            _write_samples(run / "photos")
        shutil.copyfile(painting, run / f"{out.stem}{painting.suffix.lower()}")
        with write_beside(run / "choice.json") as temporary:
            temporary.write_text(json.dumps(asdict(replace(choice, name=out.stem))), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(run, ignore_errors=True)
        raise OutputError(f"Cannot write to {run}: {(error.strerror or str(error)).lower()}.") from error
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        raise
    return out


def run_folder(out: Path) -> Path:
    """The folder with the painting, the photos and the settings of the run that writes `out`."""
    return out.with_name(f"{out.stem}.run")


def learn(studio: Studio, out: Path, *, resume: bool = False) -> Callable[[Job], list[Path]]:
    """The `work` function of a job that trains a prepared run. out: from `prepare`. resume: continue a stopped run."""

    def work(job: Job) -> list[Path]:
        from perceptual.data import Photographs
        from perceptual.tasks.style import Style, read_paintings
        from perceptual.train import Trainer

        choice = choice_of(out)
        recipe, paths, run = choice.recipe(), weight_paths(studio.config.weights), run_folder(out)
        own = run / "photos"
        photos = own if any(own.iterdir()) or studio.config.photos is None else studio.config.photos
        train = recipe.train
        dataset = Photographs(photos, train.size, seed=train.seed, crop=train.crop, skip_flat=Style.skip_flat)
        paintings = read_paintings([next(run.glob(f"{choice.name}.*"))], recipe)
        card = Card(
            task="style", network=recipe.network, about=choice.name, data=f"{len(dataset)} photographs", recipe="own"
        )
        task = Style(paintings, recipe, dataset, label=card, paths=paths).start_from(BASE)
        trainer = Trainer(task, train, out, device=studio.config.device)
        trainer.begin(resume=resume)
        job.first = job.index = trainer.step
        job.total = train.steps
        job.follow(trainer.run(dataset))
        return [out]

    return work


def choice_of(out: Path) -> Choice:
    """The user's settings of a prepared run.

    Raises:
        ConfigError: the file with the settings is missing or damaged.
    """
    file = run_folder(out) / "choice.json"
    try:
        return from_dict(Choice, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise ConfigError(f"{file} is missing or damaged: this style cannot be learned further.") from error


def _free(folder: Folder, name: str) -> Path:
    """The file of a new style: NAME, or NAME_2 and so on if the name is used already, also by a shipped style."""
    first = folder.style(name).stem
    taken, count = {*checkpoints.gallery(), *(path.name.partition(".")[0] for path in folder.styles.iterdir())}, 1
    while (stem := first if count == 1 else f"{first}_{count}") in taken:
        count += 1
    return folder.style(stem)


def _write_samples(folder: Path) -> None:
    """Write the sample photos that are installed with scikit-image.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    from perceptual.data import sample_photos

    names = ("astronaut", "chelsea", "coffee", "rocket")
    missing = "Learning needs photos: give some, or pip install scikit-image for its samples."
    for name, pixels in zip(names, sample_photos(names, missing), strict=True):
        images.write(folder / f"{name}.png", pixels)
