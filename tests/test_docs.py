"""The documentation is right: its code runs, its commands parse, its links lead to pages, and nothing is left out."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
import tyro
import yaml
from PIL import Image

import perceptual
from perceptual import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def tool(name: str) -> Any:
    """A module of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs_pages = tool("docs_pages")
GENERATED = docs_pages.pages()
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))} | GENERATED
OUTSIDE = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(ROOT.glob("*.md"))}
GALLERY = Path(perceptual.__file__).parent / "models" / "style" / "gallery.safetensors"
EVERYWHERE = {"--help", "--help-all", "--json", "--quiet"}  # flags of every command
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"^(?:<!-- test: (?P<note>[^\n]*) -->\n)?```(?P<kind>python|sh)\n(?P<code>.*?)^```", re.M | re.S)


def blocks(kind: str) -> list[Any]:
    """(note, code) of each code block of the README and of the pages in docs/; equal blocks count once."""
    found: dict[str, Any] = {}
    texts = OUTSIDE | {name: text for name, text in PAGES.items() if name not in docs_pages.COPIES}
    for page, text in texts.items():
        for number, match in enumerate(each for each in CODE.finditer(text) if each["kind"] == kind):
            found.setdefault(match["code"], pytest.param(match["note"], match["code"], id=f"{page}-{number}"))
    return list(found.values())


def local_links(text: str) -> list[str]:
    return [link for link in LINK.findall(text) if "://" not in link]


def section(command: str) -> str:
    """The part of the reference that is about one command."""
    return GENERATED["reference/commands.md"].split(f"\n## perceptual {command}\n")[1].split("\n## ")[0]


# --- pages


def test_the_readme_is_short() -> None:
    assert len(OUTSIDE["README.md"].splitlines()) <= 200


def test_the_readme_names_both_commands_and_what_is_downloaded() -> None:
    for part in (
        "make demo",
        "make test",
        "https://download.pytorch.org/whl/cpu",
        "553 MB",
        "--weights vgg16-torchvision=FILE",
    ):
        assert part in OUTSIDE["README.md"]


def listed(entries: Any) -> list[str]:
    """The pages of a `nav`."""
    if isinstance(entries, str):
        return [entries]
    return [page for each in (entries.values() if isinstance(entries, dict) else entries) for page in listed(each)]


def test_every_page_is_in_the_navigation_once() -> None:
    nav = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(nav) == sorted(PAGES)


def test_every_page_is_reached_in_two_clicks_from_the_start_page() -> None:
    reached = ["index.md"]
    for _ in range(2):
        for page in list(reached):
            folder = (DOCS / page).parent
            targets = ((folder / link).resolve() for link in local_links(PAGES[page]) if link.endswith(".md"))
            reached += [target.relative_to(DOCS).as_posix() for target in targets]
    assert set(PAGES) - set(reached) == set()


def test_every_link_leads_to_a_file() -> None:
    wrong, there = [], {(DOCS / page).resolve() for page in GENERATED}
    texts = {ROOT / page: text for page, text in OUTSIDE.items()} | {DOCS / page: text for page, text in PAGES.items()}
    texts[ROOT / "benchmarks" / "README.md"] = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    for page, text in texts.items():
        targets = {link: (page.parent / link).resolve() for link in local_links(text)}
        wrong += [f"{page.name}: {link}" for link, path in targets.items() if not path.exists() and path not in there]
    assert wrong == []


# --- reference


def test_every_public_name_is_on_a_page_of_the_api() -> None:
    text = "\n".join(text for page, text in PAGES.items() if page.startswith("api/"))
    shown = re.findall(r"^::: perceptual\.(\S+)$", text, flags=re.M)
    assert set(perceptual.__all__) - set(shown) == set()
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("command", [name for name in cli.commands() if not name.startswith("-")])
def test_every_flag_of_every_command_is_in_the_reference(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", capsys.readouterr().out)) - EVERYWHERE
    table = "".join(line.split(" | ")[0] for line in section(command).splitlines() if line.startswith("| "))
    assert [flag for flag in sorted(flags) if f"`{flag}`" not in table] == []


INLINE = re.findall(r"`perceptual ([a-z][^`]*)`", " ".join(" ".join((PAGES | OUTSIDE).values()).split()))


@pytest.mark.parametrize("line", sorted(set(INLINE) - {"help COMMAND"}))
def test_every_command_in_a_sentence_has_these_flags(line: str) -> None:
    """A sentence may name a group of commands, such as `perceptual train --config`: then one of them has the flags."""
    flags = {word.split("=")[0] for word in line.split() if word.startswith("--")} - EVERYWHERE
    exact = [name for name in cli.commands() if f"{line} ".startswith(f"{name} ")]
    meant = exact or [name for name in cli.commands() if name.startswith(f"{line.split()[0]} ")]
    assert any(all(f"`{flag}`" in section(name) for flag in flags) for name in meant)


def test_the_reference_has_type_range_default_and_meaning() -> None:
    lines = section("stylize").splitlines()
    assert "| flag | values | default | meaning |" in lines
    (strength,) = [line for line in lines if line.startswith("| `--strength` ")]
    assert strength.split(" | ")[1:3] == ["number, 0 to 1", "`1.0`"]
    (out,) = [line for line in lines if line.startswith("| `-o`, `--out` ")]
    assert out.split(" | ")[1:3] == ["path", "not set"]
    assert all(line.split(" | ")[3].strip(" |") for line in lines if line.startswith("| `"))


def test_every_recipe_is_in_the_reference() -> None:
    for command, recipes in docs_pages.recipes().items():
        part = GENERATED["reference/recipes.md"].split(f"## perceptual {command}\n")[1].split("\n## ")[0]
        assert [name for name in recipes if f"| `{name}` |" not in part] == []


def test_docstrings_get_their_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "griffe", types.SimpleNamespace(Extension=object))
    text = (
        "Do it.\n\n>>> do(1, 2)\n\na, b: two\n    numbers.\nother: words.\n\nRaises:\n    AError: one. BError: two.\n"
    )
    assert tool("docs_docstrings").sections(text, ["a", "b"], "Args") == (
        "Do it.\n\n```python\ndo(1, 2)\n```\n\nother: words.\n\nArgs:\n    a: two numbers.\n    b: two numbers.\n\n"
        "Raises:\n    AError: one.\n    BError: two."
    )


# --- code


@pytest.fixture
def folder(tmp_path: Path, photograph: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the examples name."""
    small = photograph.resize((96, 64))
    small.save(tmp_path / "photo.jpg")
    small.rotate(180).save(tmp_path / "painting.jpg")
    clips.make(tmp_path / "clip.mp4", count=3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(photograph: Image.Image) -> dict[str, Any]:
    """The variables that the examples use without defining them."""
    image = photograph.resize((96, 64))
    original = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    return {
        "image": image,
        "original": original,
        "large": (original + 0.02).clamp(0, 1),
        "frames": [image, image.rotate(1)],
        "paintings": [image, image.rotate(2)],
    }


def run(code: str, photograph: Image.Image, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    namespace = names(photograph)
    exec(compile(code, "documentation", "exec"), namespace)
    if "optimizer" in namespace:  # an example that trains
        totals = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
        assert totals[-1] < 0.9 * totals[0]


PYTHON = blocks("python")


@pytest.mark.parametrize(("note", "code"), [each for each in PYTHON if each.values[0] is None])
def test_python_runs(
    note: None, code: str, folder: Path, photograph: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    run(code, photograph, capsys)


@pytest.mark.shared
@pytest.mark.parametrize(("note", "code"), [each for each in PYTHON if each.values[0] is not None])
def test_python_that_needs_weights_runs(
    note: str,
    code: str,
    folder: Path,
    photograph: Image.Image,
    pretrained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert note.startswith("needs the weights of ")
    if "torchmetrics" in note:
        pytest.importorskip("torchmetrics")
    run(code, photograph, capsys)


def commands(code: str) -> list[str]:
    """The lines of a shell block, with continued lines in one piece and without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(("note", "code"), blocks("sh"))
def test_shell_commands_parse(note: None, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own parser takes every `perceptual` line; scripts and targets of make exist."""
    parse = tyro.cli

    class Parsed(Exception):
        pass

    def stop(*what: Any, **options: Any) -> None:
        parse(*what, **options)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", stop)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for line in commands(code):
        for part in re.split(r"; (?:do )?", line):
            words = shlex.split(part, comments=True)
            words = words[: words.index(">")] if ">" in words else words
            if words[:2] == ["perceptual", "--print-completion"]:
                assert cli.main(words[1:]) == 0
            elif words[0] == "perceptual":
                for word in words:  # networks that exist only in the example
                    if word.endswith(".safetensors") and not Path(word).exists():
                        shutil.copy(GALLERY, word)
                with pytest.raises(Parsed):
                    cli.main(words[1:])
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), words[1]
            elif words[0] == "make":
                assert f"\n{words[1]}:" in makefile, words[1]
