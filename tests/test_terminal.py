"""What reaches a terminal: names, cards and answers of others as plain text, without what would steer it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import assert_one_sentence
from PIL import Image

from perceptual import checkpoints
from perceptual.cli import main, results
from perceptual.cli.terminal import be_quiet, printable, say, show, with_bar
from perceptual.config import NetworkConfig
from perceptual.errors import ImageError
from perceptual.events import Step
from perceptual.images import damage
from perceptual.networks import TransformationNetwork

Capture = pytest.CaptureFixture[str]
CLI = Path(__file__).parents[1] / "src" / "perceptual" / "cli"
ESC = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e"
ESCAPED = r"\u001b[2J\u001b]0;owned\u0007\u009b31m\u000d\u202e"


@pytest.fixture(autouse=True)
def plain_output() -> None:
    """As without --json and --quiet, which the command of another test may have had."""
    results.begin(wanted=False)
    be_quiet(False)


def clean(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (":cat:.png", ":cat:.png"),
        ("[bold]x[/bold] [red", "[bold]x[/bold] [red"),
        ("Zoë 神奈川 🌊 \\ [/]", "Zoë 神奈川 🌊 \\ [/]"),
        (ESC, ESCAPED),
        ("a\nb\tc", r"a\u000ab\u0009c"),
    ],
)
def test_a_line_is_printed_as_it_is_but_for_control_characters(capsys: Capture, text: str, shown: str) -> None:
    assert printable(text) == shown
    say(text)
    show(text)
    caught = capsys.readouterr()
    assert (caught.err, caught.out) == (f"{shown}\n", f"{shown}\n")


def test_lines_that_are_wanted_stay(capsys: Capture) -> None:
    say("a\nb", lines=True)
    show(json.dumps({"a": ESC, "b": "c"}, indent=2, ensure_ascii=False), lines=True)
    caught = capsys.readouterr()
    assert caught.err == "a\nb\n"
    assert clean(caught.out)
    assert json.loads(caught.out) == {"a": ESC, "b": "c"}


def test_messages_of_steps_are_escaped(capsys: Capture) -> None:
    assert len(list(with_bar(iter([Step(1, 1, message=f"Skipped :cat: {ESC}.")]), "title"))) == 1
    err = capsys.readouterr().err
    assert f"Skipped :cat: {ESCAPED}.\n" in err
    assert clean(err)


@pytest.mark.parametrize("name", [":cat:.png", f"a{ESC}.png", "a\nperceptual: all is well.png"], ids=range(3))
def test_names_of_files_are_escaped(capsys: Capture, tmp_path: Path, tiny_style: Path, name: str) -> None:
    """A picture that is painted, one that is damaged and one that is not there."""
    try:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    except OSError:
        pytest.skip("this system has no such names")
    (tmp_path / f"b{name}").write_bytes(b"no picture")
    out = tmp_path / "out"
    main(["stylize", str(tmp_path / name), str(tmp_path / f"b{name}"), "--style", str(tiny_style), "-o", str(out)])
    caught = capsys.readouterr()
    assert clean(caught.out + caught.err)
    assert caught.out == f"{printable(str(out / name))}\n"
    assert printable(f"b{name}") in caught.err
    assert main(["stylize", str(tmp_path / f"missing{name}"), "--style", str(tiny_style), "-o", str(out)]) == 1
    assert_one_sentence(capsys.readouterr().err, printable(f"missing{name}"))


def test_a_card_cannot_steer_a_terminal(capsys: Capture, tmp_path: Path) -> None:
    config = NetworkConfig("c3s1-4 c3s1-3", norm="instance", padding="reflect")
    card = checkpoints.Card("style", config, (f"a{ESC}",), about=ESC, recipe=ESC, data=ESC, licence=ESC)
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, TransformationNetwork(config), card)
    assert main(["styles", str(path)]) == 0
    caught = capsys.readouterr()
    assert clean(caught.out)
    assert json.loads(caught.out)[str(path)]["about"] == ESC
    assert main(["stylize", "x.png", "--style", str(path), "--name", f"b{ESC}", "-o", str(tmp_path)]) == 1
    assert clean(capsys.readouterr().err)


def test_all_that_the_command_prints_goes_through_one_place() -> None:
    wrong = []
    for path in CLI.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            prints = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            if prints and path.name != "terminal.py":
                wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_picture_that_does_not_fit_into_memory_is_not_called_damaged(error: Exception) -> None:
    with pytest.raises(ImageError, match=r"^a\.png does not fit into memory: make it smaller first\.$"), \
            damage.decoding("a.png"):  # fmt: skip
        raise error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C in another way")
@pytest.mark.parametrize("document", [False, True])
def test_ctrl_c_while_a_module_loads_is_one_line_even_if_the_module_catches_it(tmp_path: Path, document: bool) -> None:
    greedy = "import os, signal\ntry: os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException: pass\n"
    (tmp_path / "greedy.py").write_text(greedy)
    program = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)  # nohup would ignore it\n"
        "from perceptual.cli import results, terminal\nterminal.stop_in_imports()\n"
        f"results.begin(wanted={document})\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt: print('caught', flush=True)\n"
        "import greedy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "perceptual: stopped.\n")
    assert done.stdout.startswith("caught\n")
    assert ('"exit_code": 130' in done.stdout) == document
