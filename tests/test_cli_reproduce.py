"""The command `perceptual reproduce`: every experiment from end to end, small, on loss networks of random weights."""

from __future__ import annotations

import csv
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_one_sentence
from matplotlib.figure import Figure
from PIL import Image
from test_cli import run as run_command

from perceptual import checkpoints, images, lbfgs
from perceptual.checkpoints import shipped
from perceptual.config import LossConfig, NetworkConfig, ReproduceConfig, TrainConfig, to_dict
from perceptual.data import Photographs
from perceptual.errors import WeightsError
from perceptual.events import Step
from perceptual.losses import PerceptualLoss, PixelLoss, style_transfer_loss, weights
from perceptual.losses.architectures import ARCHITECTURES
from perceptual.networks import TransformationNetwork
from perceptual.optimize import Optimization, white_noise
from perceptual.reproduce import EXPERIMENTS, supplement_figure2, table1
from perceptual.reproduce.lab import Lab
from perceptual.reproduce.sheets import _distances
from perceptual.tasks.style_recipes import StyleRecipe
from perceptual.train import Trainer

Run = Callable[..., tuple[int, str, str]]

STYLES = ("starry_night", "wave")
CONTENT, SHALLOW = "vgg19-distilled:relu2_2", "vgg19-distilled:relu1_2"
LOSS = LossConfig((CONTENT,), (SHALLOW, CONTENT), weighting="relative", style_weight=2.0, tv_weight=0.02)


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights are on this computer, and none can be fetched."""

    def fetch(name: str) -> Iterator[Step]:
        raise WeightsError(f"The weights {name} are not on this machine.")

    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "fetch", fetch)
    any_distilled(monkeypatch)


def any_distilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a file of random weights for the distilled VGG-19."""
    entry = weights.PRETRAINED["vgg19-distilled"]
    monkeypatch.setitem(weights.PRETRAINED, "vgg19-distilled", replace(entry, strict=False))


@pytest.fixture(scope="session")
def loss_networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of random weights: VGG-16 up to relu2_2, and the whole distilled VGG-19."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    torch.manual_seed(0)
    for name, kind, last in (("vgg16", "vgg16", "relu2_2"), ("vgg19-distilled", "vgg19_distilled", "relu5_1")):
        state = {}
        for index, (stage, module) in enumerate(ARCHITECTURES[kind](kind)):
            prefix = f"features.{index}" if kind == "vgg16" else stage.replace("_", "")
            for key, value in module.named_parameters():
                filled = torch.nn.init.kaiming_normal_(value) if value.dim() > 1 else torch.nn.init.zeros_(value)
                state[f"{prefix}.{key}"] = filled.detach()
            if stage == last:
                break
        files[name] = folder / f"{name}.pth"
        torch.save(state, files[name])
    return files


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, loss_networks: dict[str, Path]) -> Path:
    """An untrained network of two of the gallery's styles, with the objective that it could be trained for."""
    torch.manual_seed(0)
    config = NetworkConfig("c3s1-4 d4 r4*2 U4 c3s1-3", norm="conditional_instance", padding="reflect", styles=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        any_distilled(monkeypatch)
        loss = style_transfer_loss(LOSS, [shipped.targets(style) for style in STYLES], paths=loss_networks)
    references = loss.calibrate([torch.rand(4, 3, 32, 32)])
    settings = to_dict(StyleRecipe(config, LOSS))
    card = checkpoints.Card("style", config, STYLES, recipe="sketch", settings=settings, references=references)
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    checkpoints.save(path, TransformationNetwork(config), card)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """perceptual reproduce with these words: exit code, stdout, stderr."""

    return partial(run_command, capsys, "reproduce")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def photos(tmp_path: Path, photograph: Image.Image) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        photograph.rotate(10 * index).resize((64, 48)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def small(loss_networks: dict[str, Path], photos: Path, out: Path) -> list[object]:
    """The flags of a short run on one photograph."""
    files = [f"{name}={path}" for name, path in loss_networks.items()]
    short = ["--photos", photos, "--sizes", 32, "--images", 1, "--iterations", 2]
    return ["--out", out, "--device", "cpu", "--weights", *files, *short]


def taken(name: str, words: list[object]) -> list[object]:
    """The flags without those that have no effect on an experiment, and would be refused."""
    flags = {f"--{setting}" for setting in EXPERIMENTS[name].IGNORED}
    return [word for k, word in enumerate(words) if word not in flags and (k == 0 or words[k - 1] not in flags)]


def numbers(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    return found


def page(out: Path, name: str) -> str:
    return (out / f"{name}.md").read_text(encoding="utf-8")


def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on figures are empty files: to draw one takes longer than to measure it at 32 px."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: path.touch())


def refuse_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing is optimised and nothing is trained."""

    def refuse(*_: object) -> None:
        raise AssertionError("this part was done already")

    monkeypatch.setattr(Optimization, "run", refuse)
    monkeypatch.setattr(Trainer, "run", refuse)


def rows_of(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> list[dict[str, Any]]:
    """The numbers of an experiment, which leaves its five files, and run again does no work and gives the same."""
    out = Path(str(words[words.index("--out") + 1]))
    code, told, err = run(name, *words)
    assert code == 0, err
    assert told.splitlines() == [str(out / f"{name}.{end}") for end in ("md", "png", "pdf", "csv", "json")]
    assert {path.suffix for path in out.glob(f"{name}.*")} == {".md", ".png", ".pdf", ".csv", ".json"}
    first = numbers(out, name)["rows"]
    refuse_work(monkeypatch)
    blank_figures(monkeypatch)
    assert run(name, *words)[0] == 0
    rows: list[dict[str, Any]] = numbers(out, name)["rows"]
    same = [[pytest.approx(v) if isinstance(v, float) else v for v in row.values()] for row in first]
    assert [list(row.values()) for row in rows] == same
    with (out / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in rows]
    return rows


def interrupt(monkeypatch: pytest.MonkeyPatch, *, at: int, times: int = 1) -> None:
    """Ctrl-C at this point of all that L-BFGS gives, the starts included."""
    minimize, points = lbfgs.minimize, itertools.count()

    def interrupted(*arguments: Any, **options: Any) -> Iterator[lbfgs.Point]:
        for point in minimize(*arguments, **options):
            if next(points) == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            yield point

    monkeypatch.setattr(lbfgs, "minimize", interrupted)


# --- the experiments


def test_figure3_rebuilds_from_the_layers_within_reach_and_tells_the_others(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], out: Path
) -> None:
    rows = rows_of(run, monkeypatch, "figure3", *small)
    assert [(row["the paper's layer"], row["layer"]) for row in rows] == [
        ("vgg16:relu2_2", "vgg16:relu2_2"),
        ("vgg16:relu3_3", "vgg19-distilled:relu3_3"),
        ("vgg16:relu4_3", "vgg19-distilled:relu4_3"),
        ("vgg16:relu5_1", "vgg19-distilled:relu5_1"),
    ]
    assert all(row["at the end"] < row["at white noise"] and row["iterations"] == 2 for row in rows)
    assert len({row["at the end"] for row in rows}) == len(list((out / "parts").iterdir())) == 4
    told = page(out, "figure3")
    assert "of vgg16 on this computer do not include relu4_3: vgg19-distilled:relu4_3 is used instead." in told
    assert "The weights of vgg16 on this computer do not include relu5_3: it is left out." in told
    assert "include relu2_2" not in told


def test_figure4_starts_at_five_for_every_layer_and_for_all_of_them(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object]
) -> None:
    rows = rows_of(run, monkeypatch, "figure4", *taken("figure4", small))
    layers = ["vgg16:relu1_2", "vgg16:relu2_2", "vgg19-distilled:relu3_3", "vgg19-distilled:relu4_3", "all 4"]
    assert [row["layers"] for row in rows] == layers
    # The noise that is measured and the start lie in memory otherwise, so that sums may go in another order.
    assert [row["at white noise"] for row in rows] == pytest.approx([5.0] * 5, rel=1e-4)
    assert all(row["at the end"] < 5 for row in rows)
    assert len({row["at the end"] for row in rows}) == 5


def test_figure5_has_every_iteration_of_every_size_and_says_where_the_baseline_passes_our_network(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path
) -> None:
    words = [*small, "--network", network, "--sizes", 32, 48, "--images", 2, 1, "--iterations", 3, 2]
    rows = rows_of(run, monkeypatch, "figure5", *words)
    assert [(row["px"], row["iteration"], row["photographs"]) for row in rows] == [
        *((32, k, 2) for k in ("", "", "0", "1", "2", "3")),
        *((48, k, 1) for k in ("", "", "0", "1", "2")),
    ]
    for px, line in zip((32, 48), numbers(out, "figure5")["table"], strict=True):
        (own,), (ours,), baseline = (
            [row["mean"] for row in rows if (row["px"], row["what"]) == (px, what)]
            for what in ("photograph", "network", "baseline")
        )
        assert (line["at the photograph"], line["our network"]) == (own, ours)
        assert ours != own
        assert baseline == sorted(baseline, reverse=True)
        below = [k for k, mean in enumerate(baseline) if mean < ours]
        assert line["iterations that equal it"] == (below[0] if below else f"more than {len(baseline) - 1}")
        assert f"{line['iterations that equal it']} iterations at {px} px" in page(out, "figure5")
    assert f"content {CONTENT}; style {SHALLOW}, {CONTENT}." in page(out, "figure5")


def test_each_photograph_of_figure5_has_white_noise_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, photos: Path, out: Path
) -> None:
    for index in (1, 2):
        (photos / f"{index}.png").write_bytes((photos / "0.png").read_bytes())
    blank_figures(monkeypatch)
    assert run("figure5", *small, "--network", network, "--images", 2, "--iterations", 1)[0] == 0
    deviations = [row["deviation"] for row in numbers(out, "figure5")["rows"]]
    assert deviations[:2] == [0, 0]
    assert min(deviations[2:]) > 0


def test_figures_6_and_7_paint_each_style_and_share_their_parts(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path
) -> None:
    words = [*small, "--network", network, "--styles", *STYLES]
    rows = rows_of(run, monkeypatch, "figure6", *words)
    assert [(row["style"], row["photograph"], row["px"]) for row in rows] == [(s, "0", 32) for s in STYLES]
    assert len(list((out / "parts").iterdir())) == 2
    assert rows_of(run, monkeypatch, "figure7", *words) == rows
    assert page(out, "figure7").startswith("# Figure 7: style transfer at 32 px")


def test_the_kth_style_has_the_kth_photograph(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path
) -> None:
    words = [*small, "--network", network, "--styles", *STYLES, "--images", 2, "--iterations", 1]
    blank_figures(monkeypatch)
    assert run("figure6", *words)[0] == 0
    rows = numbers(out, "figure6")["rows"]
    assert [(row["style"], row["photograph"]) for row in rows] == [("starry_night", "0"), ("wave", "1")]
    assert "images of photos/" in page(out, "figure6")


def test_table1_has_a_median_times_the_count_until_so_many_iterations_were_timed(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path
) -> None:
    words = [*taken("table1", small), "--network", network]
    rows_of(run, monkeypatch, "table1", *words)
    (part,) = (out / "parts").glob("times_*.part")
    times = checkpoints.load_state(part)[1]["times"]
    assert (len(times["network"]), len(times["iterations"])) == (2, 2)
    few, many = [4.0, 2.0, 9.0], [2.0] * 200 + [4.0] * 150
    for iterations, spent in ((few, (400, 1200, 2000)), (many, (200, 800, 1000))):
        checkpoints.save_state(part, {}, {"times": {"network": [0.5, 0.25, 9.0], "iterations": iterations}})
        assert run("table1", *words)[0] == 0
        (row,) = numbers(out, "table1")["rows"]
        assert (row["our network"], row["one iteration"]) == (0.5, spent[2] / 500)
        assert tuple(row[f"{count} iterations"] for count in (100, 300, 500)) == spent
        assert tuple(row[f"speed-up over {count}"] for count in (100, 300, 500)) == tuple(2 * s for s in spent)
        assert row["a pass / an iteration"] == 0.5 / row["one iteration"]
        assert not any("like for like" in name for name in row)  # no VGG-16 to relu4_3 here, which the page says
    assert "is left out, because there are no weights of VGG-16 up to relu4_3" in page(out, "table1")


def test_table1_compares_like_for_like_first() -> None:
    times = {"network": [1.0], "iterations": [2.0], "paper's network": [3.0, 2.0, 4.0], "paper's iterations": [9.0]}
    row = table1._row(256, times)
    assert list(row)[1:4] == [
        "the paper's network, float32",
        "one iteration, VGG-16 to relu4_3",
        "like for like: speed-up over 500",
    ]
    assert (row["like for like: speed-up over 500"], row["speed-up over 500"]) == (1500, 1000)


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of one block, not five, and no other processes that read pictures: a fifth of the time."""
    monkeypatch.setattr(supplement_figure2, "BLOCKS", {"residual": "r128", "non-residual": "n128"})
    monkeypatch.setattr(supplement_figure2, "TrainConfig", partial(TrainConfig, workers=0))


@pytest.mark.usefixtures("shallow")
def test_the_supplement_compares_means_over_fifths_of_both_curves(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], out: Path
) -> None:
    words = [*taken("supplement-figure2", small), "--iterations", 1]
    (row,) = rows_of(run, monkeypatch, "supplement-figure2", *words)
    assert row["step"] == 1
    assert "Trained on 3 photos: " in page(out, "supplement-figure2")
    for name, level in (("residual", 2.0), ("non-residual", 3.0)):
        (log,) = (out / "parts").glob(f"{name}_*.jsonl")
        log.write_text("".join(f'{{"step": {5 * k}, "total": {level * k}}}\n' for k in range(1, 11)))
    assert run("supplement-figure2", *words)[0] == 0
    table = numbers(out, "supplement-figure2")["table"]
    assert [line["steps"] for line in table] == ["5 to 10", "15 to 20", "25 to 30", "35 to 40", "45 to 50"]
    assert [line["residual"] for line in table] == [3.0, 7.0, 11.0, 15.0, 19.0]
    assert [line["non-residual / residual"] for line in table] == [1.5] * 5


@pytest.mark.usefixtures("shallow")
def test_the_supplement_goes_on_with_the_network_that_was_being_trained(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], out: Path
) -> None:
    blank_figures(monkeypatch)
    words = ["supplement-figure2", *taken("supplement-figure2", small), "--iterations", 3]
    train, trained = Trainer.run, []

    def noted(self: Trainer, dataset: Photographs) -> Iterator[Step]:
        for step in train(self, dataset):
            trained.append(step.index)
            if len(trained) == 5:
                signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(Trainer, "run", noted)
    assert run(*words)[0] == 130
    assert trained == [1, 2, 3, 1, 2]
    assert run(*words)[0] == 0
    assert trained == [1, 2, 3, 1, 2, 3]
    assert [row["step"] for row in numbers(out, "supplement-figure2")["rows"]] == [3]


def test_the_objective_has_the_references_of_its_own_style(network: Path, loss_networks: dict[str, Path]) -> None:
    settings = ReproduceConfig(network=str(network), device="cpu")
    references = checkpoints.read_card(network).references
    photograph, picture = white_noise((32, 32), 1), white_noise((32, 32), 2)
    for at, style in enumerate(STYLES):
        terms = Lab(settings, Path(), loss_networks).comparison("", style).objective(photograph)(picture)
        shares = {name: (value / references[name][at * (len(references[name]) > 1)]).item()
                  for name, value in terms.items() if name != "total"}  # fmt: skip
        styles = shares[f"style {SHALLOW}"] + shares[f"style {CONTENT}"]
        total = shares[f"content {CONTENT}"] + 2 * 5 * styles / 2 + 0.02 * shares["tv"]
        assert terms["total"].item() == pytest.approx(total, rel=1e-5)


def test_a_folder_of_paintings_comes_before_the_shipped_targets(
    network: Path, loss_networks: dict[str, Path], tmp_path: Path
) -> None:
    images.write(tmp_path / "Wave.png", white_noise((32, 32), 3))
    painting = images.read(tmp_path / "Wave.png").pixels
    for folder, zero in ((tmp_path, True), (None, False)):
        settings = ReproduceConfig(network=str(network), paintings=folder, device="cpu")
        objective = Lab(settings, Path(), loss_networks).comparison("", "wave").objective(white_noise((32, 32), 1))
        terms = objective(painting)
        assert (terms[f"style {SHALLOW}"].item() == 0) is zero


def test_the_part_of_a_baseline_is_named_by_all_that_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, network: Path, loss_networks: dict[str, Path], tmp_path: Path
) -> None:
    files: list[Path] = []
    monkeypatch.setattr(Lab, "optimize", lambda self, run, file: iter([files.append(file)]))
    for folder, starry, wave in (("alike", 3, 3), ("other", 4, 4)):
        images.write(tmp_path / folder / "starry_night.png", white_noise((32, 32), starry))
        images.write(tmp_path / folder / "wave.png", white_noise((32, 32), wave))
    made, card = checkpoints.load(network)
    doubled = {name: [2 * value for value in values] for name, values in card.references.items()}
    checkpoints.save(tmp_path / "references.safetensors", made, replace(card, references=doubled))
    settings = to_dict(StyleRecipe(made.config, replace(LOSS, tv_weight=0.01)))
    checkpoints.save(tmp_path / "loss.safetensors", made, replace(card, settings=settings))
    values = torch.load(loss_networks["vgg19-distilled"], weights_only=True)
    torch.save({name: value.flip(0) for name, value in values.items()}, tmp_path / "flipped.pth")
    flipped = {**loss_networks, "vgg19-distilled": tmp_path / "flipped.pth"}
    plain: dict[str, Any] = {"file": network, "folder": "alike", "style": "wave", "paths": loss_networks}
    plain |= {"photograph": 1, "iterations": 5, "seed": 0}
    changes: list[dict[str, Any]] = [{}, {}, {"style": "starry_night"}, {"folder": "other"}, {"paths": flipped}]
    changes += [{"file": tmp_path / "references.safetensors"}, {"file": tmp_path / "loss.safetensors"}]
    changes += [{"photograph": 2}, {"iterations": 6}, {"seed": 1}]
    for change in changes:
        use = {**plain, **change}
        config = ReproduceConfig(network=str(use["file"]), paintings=tmp_path / use["folder"], device="cpu")
        comparison = Lab(config, tmp_path, use["paths"]).comparison("", use["style"])
        list(comparison.curve(white_noise((32, 32), use["photograph"]), use["iterations"], seed=use["seed"]))
    assert files[0] == files[1]
    assert len(set(files)) == len(changes) - 1


# --- interrupted


def test_ctrl_c_exits_130_and_the_same_command_goes_on_to_the_same_numbers(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path, tmp_path: Path
) -> None:
    blank_figures(monkeypatch)
    words = ["figure5", *small, "--network", network, "--images", 2]
    with monkeypatch.context() as patch:
        interrupt(patch, at=4)  # one iteration into the second photograph
        code, told, err = run(*words)
    assert (code, told) == (130, "")
    assert "run the same command again" in err
    assert [path.name for path in out.iterdir()] == ["parts"]
    assert len(list((out / "parts").iterdir())) == 1
    optimise, runs = Optimization.run, []
    monkeypatch.setattr(Optimization, "run", lambda self: (runs.append(self), optimise(self))[1])
    assert run(*words)[0] == 0
    assert len(runs) == 1
    assert run(*words, "--out", tmp_path / "whole")[0] == 0
    assert len(runs) == 3
    assert numbers(out, "figure5")["rows"] == numbers(tmp_path / "whole", "figure5")["rows"]


def test_a_second_ctrl_c_stops_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path
) -> None:
    interrupt(monkeypatch, at=1, times=2)
    code, _, err = run("figure5", *small, "--network", network)
    assert (code, err.splitlines()[-1]) == (130, "perceptual: stopped.")
    assert not list(out.glob("figure5.*"))


def test_ctrl_c_at_the_last_step_still_writes_what_was_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], network: Path, out: Path
) -> None:
    blank_figures(monkeypatch)
    interrupt(monkeypatch, at=2)
    assert run("figure5", *small, "--network", network)[0] == 0
    assert (out / "figure5.md").exists()


# --- mistakes


@pytest.mark.parametrize(
    ("exit_code", "words", "told"),
    [
        (2, "figure10 --out x", f"choose one of {', '.join(EXPERIMENTS)}."),
        (1, "figure5 --out FILE", "is a file: give a folder"),
        (1, "figure5 --out x --network TINY --styles udnie", "no style 'udnie'; it has starry_night, wave."),
        (1, "figure6 --out x --network TINY", "no style 'the_scream'"),
        (1, "figure5 --out x --network no_such_network", "no style 'no_such_network'"),
        (1, "figure5 --out x --network FILE", "is a picture, not a trained network"),
        (1, "figure5 --out x --network TINY --photos PHOTOS --images 4", "contains 3 images, not 4: lower --images."),
        (1, "figure5 --out x --network TINY --photos missing", "missing does not exist"),
        (1, "figure5 --out x --network TINY --paintings PHOTOS", "no painting named starry_night"),
        (1, "figure4 --out x --styles mona_lisa", "style targets for 'mona_lisa'"),
        (1, "figure3 --out x --network TINY", "--network has no effect on figure3: leave it out."),
        (1, "table1 --out x --network TINY --images 3", "--images has no effect on table1: leave it out."),
        (1, "figure8 --out x --photos PHOTOS --full", "--full has no effect on figure8: leave it out."),
        (1, "figure8 --out x --network x8_pixel", "x8_pixel enlarges 8 times: give a network for x4 to --network."),
        (1, "figure5 --out x --network TINY --images 6", "give --photos FOLDER for 6 images."),
        (1, "figure5 --out x --network TINY --images 1 2", "--images has 2 numbers for 3 sizes"),
        (2, "table1 --out x --network TINY --sizes 16", "sizes is 16; it must be a whole number from 32 to 8,192."),
        (2, "table1 --out x --network TINY --sizes 64 64", "sizes contains a number twice"),
        (2, "figure3 --out x --iterations 0", "iterations is 0"),
        (2, "figure3 --out x --weights vgg16", "--weights takes NAME=FILE"),
        (1, "figure3 --out x --weights vgg16=missing.pth", "no weights file missing.pth"),
        (1, "figure5 --out x --network TINY --device abacus", "abacus"),
    ],
)
def test_mistakes_get_one_sentence_and_a_failing_exit_code(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    photos: Path,
    network: Path,
    loss_networks: dict[str, Path],
    exit_code: int,
    words: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"FILE": photos / "0.png", "PHOTOS": photos, "TINY": network}
    here = [] if "--weights" in words else ["--weights", *(f"{name}={path}" for name, path in loss_networks.items())]
    code, _, err = run(*(places.get(word, word) for word in words.split()), *here)
    assert code == exit_code
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_a_figure_that_the_command_did_not_write_is_replaced_only_when_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, small: list[object], out: Path
) -> None:
    blank_figures(monkeypatch)
    out.mkdir()
    (out / "figure3.md").write_text("mine", encoding="utf-8")
    code, _, err = run("figure3", *small)
    assert code == 1
    assert_one_sentence(err, "figure3.md exists", "--overwrite")
    assert [path.name for path in out.iterdir()] == ["figure3.md"]
    assert run("figure3", *small, "--overwrite")[0] == 0
    assert run("figure3", *small)[0] == 0  # its own


UPSCALING = ("figure8", "figure9", "supplement-figure3", "supplement-figure4")


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in UPSCALING])
def test_without_weights_an_experiment_says_which(run: Run, network: Path, out: Path, name: str) -> None:
    code, _, err = run(name, "--out", out, *taken(name, ["--network", network, "--styles", "starry_night"]))
    missing = "vgg16" if name in ("figure3", "figure4") else "vgg19-distilled"
    assert (code, err) == (1, f"perceptual: The weights {missing} are not on this machine.\n")


def test_a_name_and_a_folder_are_needed(run: Run) -> None:
    assert run()[0] == 2
    assert run("figure5")[0] == 2


# --- with pretrained weights


@pytest.mark.shared
@pytest.mark.usefixtures("pretrained")
def test_figure5_measures_the_gallery(run: Run, out: Path) -> None:
    words = ["--network", "gallery_video", "--styles", "wave", "--sizes", 64, "--images", 1, "--iterations", 4]
    code, _, err = run("figure5", "--out", out, *words)
    assert code == 0, err
    assert all((out / f"figure5.{end}").stat().st_size > 0 for end in ("md", "png", "pdf", "csv", "json"))
    means = [row["mean"] for row in numbers(out, "figure5")["rows"]]
    assert len(means) == 2 + 5
    assert means[2:] == sorted(means[2:], reverse=True)
    assert means[-1] < 0.9 * means[2]
    assert "Great Wave" in page(out, "figure5")


@pytest.mark.shared
@pytest.mark.usefixtures("pretrained")
def test_figure3_names_the_layers_that_stand_for_others(run: Run, out: Path) -> None:
    code, _, err = run("figure3", "--out", out, "--sizes", 64, "--iterations", 3)
    assert code == 0, err
    rows = numbers(out, "figure3")["rows"]
    assert [row["layer"] for row in rows] == [
        "vgg16:relu2_2",
        "vgg16:relu3_3",
        "vgg16-torchvision:relu4_3",
        "vgg16-torchvision:relu5_1",
        "vgg16-torchvision:relu5_3",
    ]
    assert all(row["at the end"] < row["at white noise"] for row in rows)
    assert "do not include relu5_3: vgg16-torchvision:relu5_3 is used instead." in page(out, "figure3")


@pytest.mark.shared
@pytest.mark.usefixtures("pretrained")
def test_figure4_takes_the_layers_that_style_targets_come_with_where_no_painting_is_given(run: Run, out: Path) -> None:
    code, _, err = run("figure4", "--out", out, "--sizes", 64, "--iterations", 1, "--styles", "olive_trees")
    assert code == 0, err
    assert numbers(out, "figure4")["rows"][3]["layers"] == "vgg19-distilled:relu4_3"
    assert "Without --paintings there are no style targets of VGG-16's relu4_3" in page(out, "figure4")


@pytest.mark.shared
@pytest.mark.usefixtures("pretrained")
def test_figure6_measures_both_sides_at_the_deeper_layers_of_vgg16(run: Run, out: Path) -> None:
    code, _, err = run("figure6", "--out", out, "--sizes", 64, "--iterations", 2)
    assert code == 0, err
    for row in numbers(out, "figure6")["rows"]:
        for layer in ("relu4_3", "relu5_1", "relu5_3"):
            assert all(0 < float(value) < 3 for value in row[f"vgg16-torchvision:{layer}"].split(" / "))


def test_a_distance_is_0_for_the_photograph_and_1_for_its_half_turn() -> None:
    photograph = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    loss = PerceptualLoss({"pixels": (PixelLoss(), 1.0)})
    assert _distances(loss, photograph, photograph, photograph.flip(2, 3)) == {"pixels": "0.000 / 1.000"}
    assert _distances(None, photograph, photograph, photograph) == {}
