"""perceptual train style --search: a network for each value of a weight, compared on photographs held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from perceptual.cli import results
from perceptual.cli.help import words
from perceptual.cli.terminal import say, show, tell
from perceptual.config import weight_paths

if TYPE_CHECKING:
    from torch import Tensor

    from perceptual.losses import PerceptualLoss
    from perceptual.tasks.style import TrainStyleCommand
    from perceptual.tasks.style_recipes import StyleRecipe
    from perceptual.train import Processes


def search(
    config: TrainStyleCommand,
    settings: StyleRecipe,
    train: Callable[[Path, StyleRecipe], int],
    processes: Processes,
) -> int:
    """Train a network for each value of `config.search`, then write a table and a sheet; the exit code.

    train: trains the network of these settings to that checkpoint, and returns the exit code. With --resume, those that
    are finished are not trained again. processes: those that train together; process 0 compares the networks.
    """
    from perceptual.train import side_path
    from perceptual.train.search import compare, parse_search, read_held_out, trials

    assert config.out is not None  # `train` has checked it
    with words():
        planned = trials(config.out, settings, config.search or "")
    photographs = processes.together(lambda: read_held_out(config.held_out, config.data, settings.train.size))
    table, sheet = (side_path(config.out, f".search{end}") for end in (".csv", ".png"))
    runs = list(planned.values())
    for path, each in processes.from_main(lambda: _left(config, runs, table, sheet)):
        if code := train(path, each):
            return code
    if not processes.main:
        return 0
    loss = _objective(config, *planned[max(planned)])
    name, values = parse_search(config.search or "")
    rows, picture = compare({value: path for value, (path, _) in planned.items()}, photographs, loss, name)
    _write(table, sheet, rows, picture)
    say(
        f"The means of each term, unweighted, over {len(photographs)} photographs that were not trained on. In the "
        f"sheet the photograph comes first, then {name} {', '.join(f'{value:g}' for value in values)}."
    )
    results.put(output=sheet, table=rows)
    tell(sheet)
    return 0


def _left(
    config: TrainStyleCommand, runs: list[tuple[Path, StyleRecipe]], table: Path, sheet: Path
) -> list[tuple[Path, StyleRecipe]]:
    """The runs that are not finished. Before the first one starts, the files of all are checked."""
    from perceptual.files import check_new, exists
    from perceptual.train import check_out, side_path
    from perceptual.train.search import check_trained

    check_new(table, [sheet], overwrite=config.overwrite or config.resume)
    done = {path for path, _ in runs if exists(path) and not exists(side_path(path, ".state"))}
    left = [(path, each) for path, each in runs if not (config.resume and path in done)]
    for path, each in runs:
        if config.resume and path in done:
            check_trained(path, config.style, each)
    for path, _ in left:
        check_out(path, resume=config.resume, overwrite=config.overwrite)
    return left


def _objective(config: TrainStyleCommand, path: Path, settings: StyleRecipe) -> PerceptualLoss:
    """The terms of a trained network, of the largest weight, so that the term of that weight is among them."""
    from perceptual.checkpoints import read_card
    from perceptual.losses import style_transfer_loss
    from perceptual.tasks.style import read_paintings

    paintings = [pixels for _, pixels in read_paintings(config.style, settings).values()]
    loss = style_transfer_loss(settings.loss, paintings, paths=weight_paths(config.weights))
    if settings.loss.weighting == "relative":
        loss.set_references(read_card(path).references)
    return loss


def _write(table: Path, sheet: Path, rows: list[dict[str, float]], picture: Tensor) -> None:
    """Write the table and the sheet, and print the table."""
    from perceptual import images
    from perceptual.files import write_beside
    from perceptual.reproduce import report

    with write_beside(table) as temporary:
        temporary.write_text(report.as_csv(rows), encoding="utf-8")
    images.write(sheet, picture)
    show(report.table(rows), lines=True)
    tell(table)
