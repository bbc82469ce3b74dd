"""Help that is read: short pages, groups of commands, --quiet, and completion in the shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

from perceptual import cli
from perceptual.cli.completion import script
from perceptual.cli.flags import groups
from perceptual.cli.help import LINES, page, settings_of
from perceptual.tasks import TASKS

Capture = pytest.CaptureFixture[str]
COMMANDS = [name for name in cli.commands() if not name.startswith("--")]


# --- pages


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 100])
def test_a_page_fits_two_screens_and_its_lines_fit_the_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run(capsys, *command.split(), "--help")[1].splitlines()
    assert len(lines) <= LINES
    assert [line for line in lines if len(line) > width and not line.startswith("  perceptual ")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_on_the_page_once_and_every_page_has_an_example(capsys: Capture, command: str) -> None:
    out = run(capsys, *command.split(), "--help")[1]
    flags = [flag for _, each in groups(*settings_of(cli.commands()[command][0])) for flag in each]
    named = [line.split("  ")[1] for line in out.splitlines() if line.startswith("  ") and line[2:3] not in ("", " ")]
    for flag in flags:
        shown = [each for each in named if each.split(" ")[0].rstrip(",") in (flag.words or (flag.value,))]
        assert len(shown) == 1, flag
    assert f"\nExamples:\n  perceptual {command}" in out


def test_everyday_options_come_first_and_others_under_headings(capsys: Capture) -> None:
    out = run(capsys, "train", "style", "--help")[1]
    parts = ["--style PATH", "--data PATH", "--from NETWORK", "More options:", "--about", "How a network is trained:"]
    places = [out.index(part) for part in [*parts, "--ema", "For every command:", "Examples:"]]
    assert places == sorted(places)


def test_a_long_page_is_cut_and_another_flag_prints_all_of_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short, whole = (run(capsys, "train", "style", flag)[1] for flag in ("--help", "--help-all"))
    assert "The checkpoint holds the average." not in " ".join(short.split())
    assert "The checkpoint holds the average. 0.99 averages roughly the last 100 steps." in " ".join(whole.split())
    assert "--help-all" in short
    assert "--help-all" not in run(capsys, "styles", "--help")[1]


def test_sentences_are_not_broken_where_the_source_breaks_them() -> None:
    kind, default = settings_of(cli.commands()["stylize"][0])
    text = " ".join(page(kind, "stylize", default, width=4000))
    assert "Size of the strokes, 0.0625 to 16. At 4, the strokes in a photo of 2048 px are as large" in text


# --- groups, python -m, quiet


@pytest.mark.parametrize("group", ["train", "optimize", "evaluate"])
def test_a_group_lists_its_commands(capsys: Capture, group: str) -> None:
    code, out, _ = run(capsys, group, "--help")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith(f"  {group} ")] == [
        name.split()[1] for name in COMMANDS if name.startswith(f"{group} ")
    ]
    assert run(capsys, group, "-h")[0] == 0
    assert run(capsys, group)[0] == 2
    code, out, err = run(capsys, group, "no-such")
    assert (code, out) == (2, "")
    assert f"perceptual {group} " in err


def test_the_help_of_weights_names_the_command_below_it(capsys: Capture) -> None:
    assert "perceptual weights fetch NAME" in run(capsys, "weights", "--help")[1]


def test_the_package_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "perceptual", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("perceptual ")


def test_quiet_prints_errors_only(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path, photograph: Image.Image
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph.resize((32, 24)).save("a.png")
    words = ["stylize", "a.png", "--style", tiny_style, "--device", "cpu", "-o"]
    assert run(capsys, *words, "b.png", "--quiet") == (0, "", "")
    assert Path("b.png").exists()
    assert run(capsys, "--quiet", *words, "b.png") == (0, "", "")
    code, out, err = run(capsys, "stylize", "missing.png", *words[2:], "b.png", "--quiet")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "missing.png")
    Path("c.png").write_bytes(b"no picture")
    code, out, err = run(capsys, "stylize", "a.png", "c.png", *words[2:], "out", "--quiet")
    assert (code, out, err.startswith("[2/2] failed: c.png"), err.count("\n")) == (1, "", True, 1)
    assert "wave" in run(capsys, "styles", "--quiet")[1]  # what was asked for
    assert "1 written" in run(capsys, *words, "d.png")[2]  # and the next run speaks again


# --- completion


def complete(tmp_path: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    path = tmp_path / "completion.bash"
    path.write_text(script("bash", cli.commands()))
    lines = f'. "{path}"; COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words)}'
    if words[-1] == "-":
        lines = f'. "{path}"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}'
    code = f'{lines}; _perceptual; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_flags_and_words(tmp_path: Path) -> None:
    first = {"stylize", "train", "weights", "doctor", "push", "--help", "--version"}
    assert first < complete(tmp_path, "perceptual")
    assert {"--private", "--json"} < complete(tmp_path, "perceptual", "push", "-")
    assert complete(tmp_path, "perceptual", "doctor", "-") == {"--help", "--quiet", "--json"}
    assert complete(tmp_path, "perceptual", "train") == {*TASKS, "--help"}
    assert {"--style", "--out", "--tv-weight", "--quiet"} < complete(tmp_path, "perceptual", "train", "style", "-")
    assert complete(tmp_path, "perceptual", "stylize", "--format") == {"png", "jpg", "webp", "tiff", "bmp"}
    assert "starry_night" in complete(tmp_path, "perceptual", "stylize", "--style")
    assert complete(tmp_path, "perceptual", "train", "style", "--crop") == {"random", "squash", "native"}
    assert complete(tmp_path, "perceptual", "stylize") == set()  # then the shell offers files
    assert complete(tmp_path, "perceptual", "weights") == {"fetch"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("perceptual styl", {"styles", "stylize"}),
        ("perceptual train sty", {"style"}),
        ("perceptual stylize --strengt", {"--strength"}),
        ("perceptual stylize --style wat", {"water_lilies"}),
    ],
)
def test_fish_completes_commands_flags_and_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("completion.fish").write_text(script("fish", cli.commands()))
    code = f"source completion.fish; complete -C {shlex.quote(line)}"
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, check=True, env=home)
    assert {found.split("\t")[0] for found in done.stdout.splitlines()} == words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_flag_of_every_command_is_in_the_script(capsys: Capture, shell: str) -> None:
    code, out, _ = run(capsys, "--print-completion", shell)
    assert code == 0
    for command in COMMANDS:
        for _, flags in groups(*settings_of(cli.commands()[command][0])):
            for word in (word for flag in flags for word in flag.words if word.startswith("--")):
                assert (f"-l {word[2:]}" if shell == "fish" else word) in out


def test_another_shell_is_refused(capsys: Capture) -> None:
    for words in (["tcsh"], []):
        code, _, err = run(capsys, "--print-completion", *words)
        assert code == 2
        assert_one_sentence(err, "bash, zsh or fish")
