"""What the experiments of the paper are made of: the arithmetic of a panel, the plan of work, kept parts, the page."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from perceptual import checkpoints, images
from perceptual.config import OptimizeConfig, ReproduceConfig
from perceptual.errors import ConfigError, ImageError, OutputError, WeightsError
from perceptual.events import Step
from perceptual.losses import weights
from perceptual.optimize import Optimization
from perceptual.reproduce import EXPERIMENTS, reproduce
from perceptual.reproduce.figure5 import Panel
from perceptual.reproduce.lab import SAMPLES, Lab, Work, digest, square
from perceptual.reproduce.report import Report, check_out, command, mean_and_deviation, new_figure, sheet, table, write

DEFAULT = (Work(256, 5, 500), Work(512, 2, 150), Work(1024, 1, 60))
FULL = (Work(256, 50, 500),)


def panel(ours: list[float], *curves: list[float], own: tuple[float, ...] = (1.0,)) -> Panel:
    made = Panel(64)
    made.own, made.ours, made.curves = list(own), ours, list(curves)
    return made


def lab(out: Path = Path("unused"), **settings: Any) -> Lab:
    return Lab(ReproduceConfig(**settings), out, {})


def finish(steps: Generator[Step, None, Any]) -> tuple[list[Step], Any]:
    """What a generator yields, and its value."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return seen, stop.value


# --- the arithmetic of Figure 5


def test_mean_and_deviation_are_those_of_a_sample() -> None:
    assert mean_and_deviation([2.0, 4.0, 6.0]) == (4.0, 2.0)
    assert mean_and_deviation([3.0]) == (3.0, 0.0)


def test_the_crossing_is_the_first_iteration_whose_mean_is_below_the_networks() -> None:
    """Means of the baseline: 8, 5, 3, 1."""
    curves = [9.0, 6.0, 4.0, 1.0], [7.0, 4.0, 2.0, 1.0]
    assert panel([3.5, 4.5], *curves).crossing == 2
    assert panel([5.0, 5.0], *curves).crossing == 2  # equal is not below
    assert panel([9.0], *curves).crossing == 0
    assert panel([1.0], *curves).crossing is None


def test_a_curve_that_ended_early_keeps_its_last_value() -> None:
    made = panel([3.5], [8.0, 4.0], [6.0, 6.0, 6.0, 2.0])
    assert made.length == 4
    assert [made.at(k) for k in range(4)] == [[8.0, 6.0], [4.0, 6.0], [4.0, 6.0], [4.0, 2.0]]
    assert [made.mean(k) for k in range(4)] == [7.0, 5.0, 5.0, 3.0]
    assert made.crossing == 3


def test_the_summary_has_the_baseline_at_the_iterations_that_were_run() -> None:
    line = panel([4.0, 8.0], [9.0] * 100 + [5.0], own=(3.0, 5.0)).summary()
    assert (line["px"], line["photographs"], line["at the photograph"]) == (64, 2, 4.0)
    assert line["our network"] == 6.0
    assert line["its deviation"] == pytest.approx(8**0.5)
    assert line["iterations that equal it"] == 100
    assert (line["baseline at 50"], line["baseline at 100"], line["baseline at 200"]) == (9.0, 5.0, "-")


def test_a_network_that_no_iteration_reaches_equals_more_than_all_of_them() -> None:
    assert panel([1.0], [9.0, 5.0, 2.0]).summary()["iterations that equal it"] == "more than 2"


def test_the_rows_are_the_photograph_the_network_and_every_iteration() -> None:
    made = panel([4.0, 8.0], [9.0, 3.0], [7.0, 3.0], own=(3.0, 3.0))
    spread = 2**0.5
    assert [list(row.values()) for row in made.rows()] == [
        [64, "photograph", "", 3.0, 0.0, 2],
        [64, "network", "", 6.0, pytest.approx(2 * spread), 2],
        [64, "baseline", "0", 8.0, pytest.approx(spread), 2],
        [64, "baseline", "1", 3.0, 0.0, 2],
    ]
    assert list(made.rows()[0]) == ["px", "what", "iteration", "mean", "deviation", "photographs"]


# --- how much is done


def folder_of(count: int, folder: Path) -> Path:
    for index in range(count):
        images.write(folder / f"{index}.png", torch.zeros(1, 3, 1, 1))
    return folder


def test_without_settings_the_plan_is_the_default_and_full_is_the_papers(tmp_path: Path) -> None:
    assert lab().plan(DEFAULT, FULL) == list(DEFAULT)
    assert lab(full=True, photos=folder_of(50, tmp_path)).plan(DEFAULT, FULL) == list(FULL)


def test_a_size_that_is_planned_keeps_its_numbers_and_another_has_those_of_the_last() -> None:
    assert lab(sizes=(512, 300)).plan(DEFAULT, FULL) == [Work(512, 2, 150), Work(300, 1, 60)]


def test_one_number_counts_for_all_sizes_and_several_for_each() -> None:
    plan = lab(images=(3,), iterations=(9, 8, 7)).plan(DEFAULT, FULL)
    assert plan == [Work(256, 3, 9), Work(512, 3, 8), Work(1024, 3, 7)]
    assert lab(sizes=(64, 32), images=(1, 2), iterations=(5,)).plan(DEFAULT, FULL) == [Work(64, 1, 5), Work(32, 2, 5)]


@pytest.mark.parametrize("settings", [{"images": (1, 2)}, {"sizes": (64,), "iterations": (1, 2)}], ids=str)
def test_a_number_for_some_of_the_sizes_is_refused(settings: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ConfigError, match=r"has 2 numbers for [13] sizes"):
        lab(**settings).plan(DEFAULT, FULL)


def test_more_images_than_samples_need_a_folder(tmp_path: Path) -> None:
    assert lab(images=(len(SAMPLES),)).plan(DEFAULT, FULL)[0].images == 5
    with pytest.raises(ConfigError, match="5 sample photos: give --photos FOLDER for 6 images"):
        lab(images=(6,)).plan(DEFAULT, FULL)
    assert lab(images=(6,), photos=folder_of(6, tmp_path)).plan(DEFAULT, FULL)[0].images == 6


def test_too_few_photographs_are_told_with_the_plan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains 3 images, not 4: lower --images"):
        lab(images=(2, 4, 1), photos=folder_of(3, tmp_path)).plan(DEFAULT, FULL)


def test_several_sizes_are_refused_where_there_is_one() -> None:
    with pytest.raises(ConfigError, match="one size"):
        lab(sizes=(32, 48)).plan(DEFAULT, FULL, one_size=True)


@pytest.mark.parametrize("settings", [{"sizes": (16,)}, {"sizes": (64, 64)}, {"images": (0,)}, {"iterations": (0,)}])
def test_sizes_and_counts_that_are_none_are_refused(settings: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ReproduceConfig(**settings)  # type: ignore[arg-type]


# --- photographs and paintings


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_square_is_the_middle_of_the_picture(turned: bool) -> None:
    pixels = torch.rand(1, 3, 4, 9)
    middle = pixels[..., 2:6]
    if turned:
        pixels, middle = pixels.mT, middle.mT
    assert torch.equal(square(pixels, 4), middle)
    assert square(pixels, 7).shape == (1, 3, 7, 7)


def test_the_photographs_of_a_folder_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, level in (("b", 0.2), ("a", 0.4), ("c", 0.6)):
        images.write(tmp_path / f"{name}.png", torch.full((1, 3, 40, 36), level))
    found = lab(photos=tmp_path).photographs(2, 32)
    assert [name for name, _ in found] == ["a", "b"]
    assert [pixels.shape for _, pixels in found] == [(1, 3, 32, 32)] * 2
    assert found[0][1].mean().item() == pytest.approx(0.4, rel=1e-5)


def test_a_folder_without_photographs_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="matches no file"):
        lab(photos=tmp_path).photographs(1, 32)


def test_the_samples_are_free_photographs_by_name() -> None:
    (name, pixels), *rest = lab().photographs(5, 32)
    assert (name, pixels.shape, len(rest)) == ("astronaut", (1, 3, 32, 32), 4)
    assert len({digest(picture) for _, picture in (("", pixels), *rest)}) == 5


def test_only_what_is_missing_is_fetched_and_what_has_no_address_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be downloaded is said before half a gigabyte is."""
    asked: list[str] = []
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "fetch", lambda name: iter([asked.append(name)]))
    here = tmp_path / "mine.pth"
    here.touch()
    layers = ("vgg16:relu1_1", "vgg16:relu2_2", "vgg19:relu1_1", "vgg19-distilled:relu1_1")
    list(Lab(ReproduceConfig(), tmp_path, {"vgg19": here}).fetch(layers))
    assert asked == ["vgg19-distilled", "vgg16"]


def test_torchvisions_network_stands_for_layers_that_the_papers_weights_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the distilled VGG-19 only for those that neither has, or where torchvision's is not at hand."""
    ends = {
        "vgg16": ["relu2_2"],
        "vgg16-torchvision": ["relu2_2", "relu4_3"],
        "vgg19-distilled": ["relu4_3", "relu5_1"],
    }

    def network(name: str, layers: list[str], *, path: Path) -> None:
        if layers[0] not in ends[name]:
            raise WeightsError("too shallow")

    monkeypatch.setattr("perceptual.reproduce.lab.LossNetwork", network)
    monkeypatch.setattr(weights, "locate", lambda name, path: Path(name) if name in ends else None)
    monkeypatch.setattr(Lab, "hashes", lambda self, layers: {})
    layers = ("vgg16:relu2_2", "vgg16:relu4_3", "vgg16:relu5_1", "vgg16:relu5_3")
    here = lab(tmp_path)
    assert here.reachable(layers) == {
        "vgg16:relu2_2": "vgg16:relu2_2",
        "vgg16:relu4_3": "vgg16-torchvision:relu4_3",
        "vgg16:relu5_1": "vgg19-distilled:relu5_1",
    }
    assert here.notes == [
        "The weights of vgg16 on this computer do not include relu4_3: vgg16-torchvision:relu4_3 is used instead.",
        "The weights of vgg16 on this computer do not include relu5_1: vgg19-distilled:relu5_1 is used instead.",
        "The weights of vgg16 on this computer do not include relu5_3: it is left out.",
    ]
    del ends["vgg16-torchvision"]
    assert lab(tmp_path).reachable(layers)["vgg16:relu4_3"] == "vgg19-distilled:relu4_3"


# --- parts that are kept


class Gray:
    """Optimisation towards middle gray; counts how often the objective was asked for."""

    def __init__(self) -> None:
        self.evaluations = 0

    def value(self, image: Tensor) -> dict[str, Tensor]:
        self.evaluations += 1
        return {"total": (image - 0.5).pow(4).sum()}

    def optimization(self, iterations: int) -> Optimization:
        config = OptimizeConfig(size=None, iterations=iterations, preview_every=0, device="cpu")
        return Optimization(lambda scale: self.value, lambda size: torch.full((1, 3, *size), 0.9), (4, 5), config)


def test_a_part_is_named_by_all_that_it_depends_on() -> None:
    here = lab(Path("out"))
    one = here.part("baseline", {"seed": 0, "layers": ("a", "b")})
    assert one.parent == Path("out/parts")
    assert here.part("baseline", {"layers": ("a", "b"), "seed": 0}) == one
    others = [here.part("baseline", {"seed": 1, "layers": ("a", "b")}), here.part("baseline", {"seed": 0})]
    others.append(here.part("texture", {"seed": 0, "layers": ("a", "b")}))
    assert len({one, *others}) == 4


def test_the_digest_of_a_tensor_is_of_its_values() -> None:
    picture = torch.rand(1, 3, 4, 5)
    assert digest(picture.mT.contiguous().mT) == digest(picture)  # another order in memory
    assert digest(picture + 1e-3) != digest(picture)


def test_a_kept_part_is_read_and_not_optimised_again(tmp_path: Path) -> None:
    gray, here = Gray(), lab(tmp_path)
    here.total, file = 6, here.part("gray", {})
    steps, curve = finish(here.optimize(gray.optimization(3), file))
    assert [(step.index, step.total) for step in steps] == [(0, 6), (1, 6), (2, 6), (3, 6)]
    assert curve.totals == sorted(curve.totals, reverse=True)
    assert curve.summary() == {"iterations": 3, "at white noise": curve.totals[0], "at the end": curve.totals[3]}
    spent = gray.evaluations
    steps, again = finish(here.optimize(gray.optimization(3), file))
    assert gray.evaluations == spent > 3
    assert [(step.index, step.total) for step in steps] == [(6, 6)]
    assert (again.totals, again.seconds) == (curve.totals, curve.seconds)
    assert torch.equal(again.picture, curve.picture)


@pytest.mark.parametrize(
    "info",
    [{}, {"totals": [1.0]}, {"totals": 5, "seconds": [1.0]}, {"totals": [], "seconds": []}, {"a": 1}],
    ids=str,
)
def test_a_part_of_wrong_types_is_made_again(tmp_path: Path, info: dict[str, Any]) -> None:
    gray, here = Gray(), lab(tmp_path)
    file = here.part("gray", {})
    checkpoints.save_state(file, {"picture": torch.zeros(1, 3, 2, 2, dtype=torch.uint8)}, info)
    _, curve = finish(here.optimize(gray.optimization(3), file))
    assert gray.evaluations > 3
    assert len(curve.totals) == 4


def test_an_optimisation_that_is_closed_in_the_middle_keeps_nothing(tmp_path: Path) -> None:
    here = lab(tmp_path)
    file = here.part("gray", {})
    steps = here.optimize(Gray().optimization(3), file)
    next(steps)
    next(steps)
    steps.close()
    assert not file.exists()
    assert here.done == 0


# --- the page


REPORT_ROWS = [{"px": 64, "what": "one, two", "value": 0.123456}, {"px": 128, "what": "three", "extra": 7}]


def report(**changes: Any) -> Report:
    values = {"found": "We found.", "differences": ["A smaller one."], **changes}
    return Report(
        "figure9", "Figure 9: a title", new_figure(2, 1), REPORT_ROWS, REPORT_ROWS[:1], "They found.", **values
    )


def test_a_table_is_markdown_with_four_digits() -> None:
    rows = [{"px": 64, "value": 0.123456}, {"px": 128, "value": "-"}]
    assert table(rows).splitlines() == ["| px | value |", "| --- | --- |", "| 64 | 0.1235 |", "| 128 | - |"]
    assert table([]) == ""


def test_the_command_tells_what_was_changed_and_of_folders_their_names_only() -> None:
    assert command("table1", ReproduceConfig(device="cpu", weights=("vgg16=secret/a.pth",))) == (
        "perceptual reproduce table1 --out FOLDER"
    )
    config = ReproduceConfig(
        photos=Path("/secret/coco"), paintings=Path("secret/museum/"), sizes=(64, 32), full=True, network="gallery"
    )
    told = "--photos coco/ --network gallery --paintings museum/ --sizes 64 32 --full"
    assert command("figure5", config) == f"perceptual reproduce figure5 --out FOLDER {told}"


def test_five_files_are_written_and_they_agree(tmp_path: Path) -> None:
    config = ReproduceConfig(sizes=(64,), photos=tmp_path / "coco")
    paths = write(report(), tmp_path / "new" / "out", config)
    assert [path.name for path in paths] == [f"figure9.{end}" for end in ("md", "png", "pdf", "csv", "json")]
    assert sorted(paths) == sorted((tmp_path / "new" / "out").iterdir())
    page = paths[0].read_text(encoding="utf-8")
    assert page.startswith("# Figure 9: a title\n")
    for text in ("(figure9.png)", "[figure9.csv](figure9.csv)", "**Here.** We found.", "**The paper.** They found."):
        assert text in page
    for text in ("- A smaller one.\n", table(REPORT_ROWS[:1]), command("figure9", config)):
        assert text in page
    assert str(tmp_path) not in page
    with Image.open(paths[1]) as picture:
        assert (picture.format, picture.size) == ("PNG", (300, 150))
    assert paths[2].read_bytes().startswith(b"%PDF")
    with paths[3].open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    numbers = json.loads(paths[4].read_text(encoding="utf-8"))
    assert (numbers["name"], numbers["settings"]["sizes"]) == ("figure9", [64])
    assert (numbers["rows"], numbers["table"]) == (REPORT_ROWS, REPORT_ROWS[:1])
    assert lines == [
        {"px": "64", "what": "one, two", "value": "0.123456", "extra": ""},
        {"px": "128", "what": "three", "value": "", "extra": "7"},
    ]


def test_a_report_without_differences_says_so(tmp_path: Path) -> None:
    page = write(report(differences=[]), tmp_path, ReproduceConfig())[0].read_text(encoding="utf-8")
    assert "## What differs from the paper's set-up\n\n- None.\n" in page


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write(report(), tmp_path / name, ReproduceConfig()) for name in ("one", "two"))
    assert [a.read_bytes() for a in one] == [b.read_bytes() for b in two]
    assert b"CreationDate" not in one[2].read_bytes()


def test_a_full_disk_leaves_the_old_files_as_they_were(tmp_path: Path) -> None:
    class Half:
        def savefig(self, path: Path, **_: object) -> None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in write(report(), tmp_path, ReproduceConfig())}
    broken = report(found="Something else.")
    broken.figure = Half()  # type: ignore[assignment]
    with pytest.raises(OutputError, match="the disk is full"):
        write(broken, tmp_path, ReproduceConfig())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_what_a_report_of_the_same_name_wrote_is_replaced_unasked(tmp_path: Path) -> None:
    name = report().name
    check_out(name, tmp_path, overwrite=False)
    (tmp_path / f"{name}.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="add --overwrite"):
        check_out(name, tmp_path, overwrite=False)
    (tmp_path / f"{name}.json").write_text('{"name": "another"}')
    with pytest.raises(OutputError, match="add --overwrite"):
        check_out(name, tmp_path, overwrite=False)
    check_out(name, tmp_path, overwrite=True)
    write(report(), tmp_path, ReproduceConfig())
    check_out(name, tmp_path, overwrite=False)


def test_a_sheet_has_a_label_for_every_picture_and_may_have_a_text_for_one() -> None:
    picture = torch.rand(1, 3, 8, 8)
    axes = sheet([[("one", picture), ("two", "The Wave\nHokusai")], [("three", picture)]]).axes
    assert [axis.get_title() for axis in axes] == ["one", "two", "three", ""]
    assert [len(axis.images) for axis in axes] == [1, 0, 1, 0]
    assert [text.get_text() for text in axes[1].texts] == ["The Wave\nHokusai"]


# --- the experiments by name


def test_an_unknown_experiment_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no experiment 'figure10'") as error:
        next(reproduce("figure10", tmp_path / "out"))
    assert all(name in str(error.value) for name in EXPERIMENTS)
    assert len(EXPERIMENTS) == 11
    assert not (tmp_path / "out").exists()
