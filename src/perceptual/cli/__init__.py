"""The command `perceptual`. Only this package prints."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import gc
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

try:  # Ctrl-C while these modules load prints one line, not a traceback
    import tyro

    from perceptual.cli import results
    from perceptual.cli.convert import convert
    from perceptual.cli.doctor import doctor
    from perceptual.cli.evaluate import evaluate_sr, evaluate_style
    from perceptual.cli.export import export
    from perceptual.cli.help import WrongCommandLine, parse
    from perceptual.cli.optimize import invert, optimize_style, texture
    from perceptual.cli.pictures import apply, stylize, upscale
    from perceptual.cli.push import push
    from perceptual.cli.reproduce import reproduce
    from perceptual.cli.serve import serve
    from perceptual.cli.sheets import suggest
    from perceptual.cli.studio import studio
    from perceptual.cli.terminal import (
        FAILED,
        INTERRUPTED,
        USAGE,
        be_quiet,
        cannot_print,
        drop_stdout,
        fail,
        show,
        show_document,
        stop_in_imports,
    )
    from perceptual.cli.train import train_commands
    from perceptual.cli.video import video
    from perceptual.cli.webcam import webcam
    from perceptual.cli.weights import fetch, weights
    from perceptual.config import to_dict
    from perceptual.errors import PerceptualError
    from perceptual.files import UNUSABLE, explain
    from perceptual.memory import keep_memory
except KeyboardInterrupt:
    sys.stderr.write("perceptual: stopped.\n")
    raise SystemExit(130) from None
except ModuleNotFoundError as error:
    if (error.name or "").startswith("perceptual"):
        raise
    sys.stderr.write(f"perceptual: The library {error.name} is missing: run `pip install perceptual`.\n")
    raise SystemExit(1) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Listing:
    """List the style networks that come with perceptual, or print the full cards of some networks.

    Example: perceptual styles wave
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Names of shipped styles or networks, or trained files: print their full cards. Default: a short list of all
    shipped networks."""


class _Upscalers(_Listing):
    """List the super-resolution networks that come with perceptual, or print the full cards of some networks.

    Example: perceptual upscalers x4_pixel
    """


def styles(arguments: Sequence[str]) -> int:
    """perceptual styles: list the shipped style networks with their cards. Returns the exit code."""
    return _cards("style", parse(_Listing, arguments, "styles"))


def upscalers(arguments: Sequence[str]) -> int:
    """perceptual upscalers: list the shipped super-resolution networks with their cards. Returns the exit code."""
    return _cards("upscale", parse(_Upscalers, arguments, "upscalers"))


def _cards(task: str, config: _Listing) -> int:
    wanted = config.names
    import json

    from perceptual.checkpoints import find_network, find_style, read_card, shipped

    def find(name: str) -> Path:
        return find_style(name)[0] if task == "style" else find_network(name, task=task)

    files = {name: find(name) for name in wanted} if wanted else shipped.networks(task)
    cards = {name: to_dict(read_card(path)) for name, path in files.items()}
    results.put(networks=cards)
    if wanted:
        show(json.dumps(cards, indent=2, ensure_ascii=False), lines=True)
        return 0
    for name, path in files.items():
        card = cards[name]
        show(f"{name} ({path.stat().st_size / 1e6:.1f} MB): {card['about']}")
        for style in card["styles"]:
            show(f"  {style:18} {card['titles'].get(style, '')}".rstrip())
        show(f"  {card['steps']} steps of recipe {card['recipe']!r} on {card['data']}; {card['licence']}")
    return 0


def version(arguments: Sequence[str]) -> int:
    """perceptual --version: print the version. Returns the exit code."""
    from importlib.metadata import version as installed

    show(f"perceptual {installed('perceptual')}")
    return 0


def print_completion(arguments: Sequence[str]) -> int:
    """perceptual --print-completion SHELL: print a completion script. Returns the exit code."""
    from perceptual.cli.completion import script

    show(script(" ".join(arguments), commands()), lines=True)
    return 0


def commands() -> dict[str, tuple[Callable[[Sequence[str]], int], str]]:
    """{name: (function of its arguments, one line for --help)}, with a command for every task of the registry."""
    return {
        "studio": (studio, "open a page in the browser that does all of this"),
        "stylize": (stylize, "paint photos in a style"),
        "suggest": (suggest, "show all styles for a photo, those first that keep most of its content"),
        "upscale": (upscale, "enlarge photos"),
        "video": (video, "paint or enlarge a video and keep its sound"),
        "webcam": (webcam, "paint the camera image live in a window"),
        "serve": (serve, "answer HTTP requests: a picture in, a picture out"),
        "styles": (styles, "list the shipped styles and their cards"),
        "upscalers": (upscalers, "list the shipped super-resolution networks and their cards"),
        "convert": (convert, "turn a style network of another program into a style file"),
        "apply": (apply, "apply any trained network, whatever its task"),
        "export": (export, "write a network as an ONNX file or a web page"),
        **train_commands(),
        "optimize style": (optimize_style, "paint one photo by optimising its pixels (Gatys et al.); slow"),
        "optimize invert": (invert, "reconstruct a photo from its features at one layer"),
        "optimize texture": (texture, "make a texture with the style of an image"),
        "evaluate sr": (evaluate_sr, "measure super-resolution by the paper's protocol, with tables and figures"),
        "evaluate style": (evaluate_style, "compare style networks on photos: objective, style, content, grid"),
        "reproduce": (reproduce, "repeat an experiment of the paper and compare figures and numbers"),
        "weights": (weights, "list the loss networks that training uses"),
        "weights fetch": (fetch, "download the weights of a loss network"),
        "push": (push, "put a trained network on the Hugging Face hub"),
        "doctor": (doctor, "print what is installed, which path will be taken, and what is missing"),
        "--print-completion": (print_completion, "print a script for the shell: bash, zsh or fish"),
        "--version": (version, "print the version"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    arguments: words after `perceptual`; those of the process if None. A PerceptualError is printed on stderr as one
    sentence, and so is an OSError about a file that cannot be used. Other exceptions are bugs and are raised. With
    --json, the results are printed as one JSON document.
    """
    words = [_with_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    be_quiet("--quiet" in words)
    results.begin(wanted="--json" in words and not {"-h", "--help", "--help-all"} & set(words))
    code = _guarded(lambda: _run([word for word in words if word not in ("--quiet", "--json")]))
    return _guarded(lambda: show_document(code))


def _with_home(word: str) -> str:
    """The word with the user's folder for a leading ~, also in --out=~/file, which a shell leaves as it is."""
    flag, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{flag}{sign}{os.path.expanduser(value)}" if value.startswith("~") else word


def _guarded(work: Callable[[], int]) -> int:
    """The exit code of some work, with an error sentence on stderr if it fails."""
    try:
        code = work()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except PerceptualError as error:
        fail(error)
        return USAGE if isinstance(error, WrongCommandLine) else FAILED
    except KeyboardInterrupt:
        fail("stopped.")
        return INTERRUPTED
    except SystemExit as stop:
        if results.wanted() and isinstance(stop.code, int):  # the command line is wrong
            return stop.code
        raise
    except BrokenPipeError:  # the reader of the output has ended, as in `perceptual styles | head -1`
        drop_stdout()
    except OSError as error:
        if error.filename is not None and error.errno in UNUSABLE:
            reasons: dict[type[OSError], str] = {
                PermissionError: "permission is denied; change its permissions, or choose another path.",
                FileNotFoundError: "it is missing; check its name.",
            }
            fail(f"Cannot use {os.fsdecode(error.filename)}: {reasons.get(type(error)) or explain(error)}")
            return FAILED
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            raise
        drop_stdout()  # an OSError without a file name comes from printing
        fail(cannot_print(error))
    return FAILED


def _run(words: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # do not fail on file names that the terminal cannot show
    known = commands()
    if words[:1] == ["help"] and words[1:]:  # `perceptual help stylize` is `perceptual stylize --help`
        words = [*words[1:], "--help"]
    for count in (2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and name in known:
            results.put(command=name)
            return known[name][0](words[count:])
    return _help(words, {name: about for name, (_, about) in known.items()})


def _help(words: Sequence[str], known: Mapping[str, str]) -> int:
    """The list of the commands, or of those that begin with the first word, such as train."""
    asked = {"-h", "--help", "help"}
    groups = {name: about for name, about in known.items() if words and name.startswith(words[0] + " ")}
    if groups and (len(words) == 1 or words[1] in asked):
        show(f"usage: perceptual {words[0]} COMMAND ...\n", lines=True)
        _list(groups)
        return 0 if words[1:] else USAGE
    if words and words[0] not in asked:
        typed = " ".join(words[: 2 if groups else 1])
        close = difflib.get_close_matches(typed, known, n=1) or list(groups)
        hint = f"; did you mean `perceptual {close[0]}`?" if close else "."
        fail(f"There is no command {typed!r}{hint} See `perceptual --help`.")
        return USAGE
    show("usage: perceptual COMMAND ...    (`perceptual COMMAND --help` lists its options)\n", lines=True)
    _list(known)
    show("\nEvery command takes --quiet (print errors and requested results only)", lines=True)
    show("and --json (print the results as one JSON document on stdout).", lines=True)
    return 0 if words else USAGE


def _list(known: Mapping[str, str]) -> None:
    for name, about in known.items():
        show(f"  {name:18} {about}")


def others_run(loadavg: Path = Path("/proc/loadavg")) -> bool:
    """True if other programs use the processors, so that waiting OpenMP threads should sleep.

    By default they spin, which is faster on an idle computer. On a busy one, a spinning thread takes time from the
    thread that it waits for, and a photo takes several times as long.
    """
    for sample in range(3):
        time.sleep(0.003 * bool(sample))
        try:
            running = int(loadavg.read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return False
        if running < 2:  # this process alone
            return False
    return True


def entry() -> None:
    """Entry point of the installed command. Sets up the process, runs `main` and exits.

    Short commands skip two things that take time: the garbage collector would scan PyTorch's modules ten times while
    they load, and Python would unload them at the end. Freed memory is kept for the next layer.
    """
    stop_in_imports()
    keep_memory()
    gc.set_threshold(100_000, 50, 50)
    if sys.platform == "linux" and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ) and others_run():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when PyTorch is imported
    code = main()
    # these leave nothing open
    ends_clean = ("stylize", "upscale", "video", "studio", "serve", "styles", "upscalers", "doctor")
    if sys.argv[1:2] and sys.argv[1] in ends_clean:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
