"""A wrong command line gets one sentence that says what is wrong, and exit code 2."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from perceptual import cli
from perceptual.cli.flags import REQUIRED, groups
from perceptual.cli.help import settings_of

Capture = pytest.CaptureFixture[str]


def wrong(capsys: Capture, line: str) -> str:
    """What the command prints on stderr about a wrong line, without the pointer to its help page."""
    try:
        code = cli.main(shlex.split(line))
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert code == 2
    assert not out
    assert err.count("\n") == 1
    sentence, _, page = err.removeprefix("perceptual: ").partition(" See `perceptual ")
    assert page.endswith("--help`.\n")
    return sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("upscale a.png --scale 4x", "--scale takes a number from 0.01 to 64, not '4x'."),
        ("upscale a.png --scale=4x", "--scale takes a number from 0.01 to 64, not '4x'."),
        ("upscale a.png --tile 1.5", "--tile takes a whole number from 0 to 65,536, not '1.5'."),
        ("stylize a.png --strength 0,5 -o b.png", "--strength takes a number from 0 to 1, not '0,5'."),
        ("stylize a.png --style_scale x", "--style-scale takes a number from 0.0625 to 16, not 'x'."),
        ("reproduce table1 --sizes 32 b -o x", "--sizes takes whole numbers from 32 to 8,192, not '32 b'."),
        ("stylize a.png --precision f16", "--precision is 'f16'; choose one of auto, int8, float32."),
        ("video a.mp4 -o b.mp4 --codec x", "--codec is 'x'; choose one of h264, hevc, vp9, av1, prores, ffv1."),
        ("stylize a.png --stlye wave", "There is no option --stlye (did you mean --style?)."),
        ("stylize a.png --foo=3", "There is no option --foo."),
        ("stylize a.png -x", "There is no option -x."),
        ("stylize a.png --keep-colors false", "--keep-colors takes no value: leave 'false' out."),
        ("stylize a.png -o ''", "The value of -o is empty: give a name."),
        ("reproduce table1 --out=", "The value of --out is empty: give a name."),
        ("train style --from '' --dry-run", "The value of --from is empty: give a name."),
        ("train style --recipe=", "The value of --recipe is empty: give a name."),
        ("doctor extra", "'extra' is one word too many: leave it out."),
        ("stylize a.png --out", "--out needs a value: --out PATH."),
        ("export", "NETWORK is missing."),
        ("evaluate sr --data x", "--out PATH is missing."),
        ("optimize style", "CONTENT, STYLE and --out PATH are missing."),
        ("optimize style a.png --out b.png", "STYLE is missing."),
    ],
)
def test_a_mistake_is_one_sentence(capsys: Capture, line: str, sentence: str) -> None:
    assert wrong(capsys, line) == sentence


@pytest.mark.parametrize(
    "line",
    [
        "stylize a.png --strength 2",
        "upscale a.png --network x4_pixel --loss feature",
        "video a.mp4 -o b.mp4 --start 2 --end 1",
        "export wave --runtime folder",
        "serve --token short",
        "stylize",
        "train style",
        "export wave:0.5,udnie:0.5",
        "--print-completion csh",
    ],
)
def test_values_out_of_range_and_options_that_contradict_each_other_are_2_and_files_are_1(
    capsys: Capture, line: str
) -> None:
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["stylize", "missing.png"]) == 1


def test_a_file_with_a_leading_hyphen_gets_advice(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-a.png").touch()
    assert wrong(capsys, "stylize -a.png") == "There is no option -a.png. For the file of this name write ./-a.png."


def test_options_that_take_a_number_say_so(capsys: Capture) -> None:
    for name, (run, _) in cli.commands().items():
        if name.startswith("-"):
            continue
        flags = [flag for _, own in groups(*settings_of(run)) for flag in own]
        if any(flag.default is REQUIRED for flag in flags):
            continue  # tyro tells these first
        for flag in flags:
            read_first = (name, flag.field) == ("train upscale", "scale")  # it chooses the recipe; exit code 1
            if "number" in flag.kind and flag.words and not read_first:
                sentence = wrong(capsys, f"{name} {flag.words[-1]} many")
                assert sentence.startswith(flag.words[-1]), (name, sentence)
                assert sentence.endswith(", not 'many'."), (name, sentence)


def test_the_name_of_a_file_is_no_part_of_an_unknown_command(capsys: Capture) -> None:
    assert wrong(capsys, "stylise a.png") == "There is no command 'stylise'; did you mean `perceptual stylize`?"
    assert wrong(capsys, "train sytle x") == "There is no command 'train sytle'; did you mean `perceptual train style`?"
    assert wrong(capsys, "qqq --quiet") == "There is no command 'qqq'."


def test_help_before_a_command_is_its_page(capsys: Capture) -> None:
    pages = []
    for line in ("help train style", "train style --help"):
        with pytest.raises(SystemExit, match="0"):
            cli.main(line.split())
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    assert pages[0].startswith("usage: perceptual train style ")
