"""The command `perceptual`; the only room that prints."""

from __future__ import annotations

import contextlib
import difflib
import errno
import gc
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

try:  # Ctrl-C while these load is no reason for a traceback
    import tyro

    from perceptual.cli.evaluate import evaluate_sr
    from perceptual.cli.optimize import invert, optimize_style, texture
    from perceptual.cli.pictures import stylize, upscale
    from perceptual.cli.reproduce import reproduce
    from perceptual.cli.terminal import FAILED, INTERRUPTED, USAGE, cannot_print, drop_stdout, say, show
    from perceptual.cli.train import train_commands
    from perceptual.cli.video import video
    from perceptual.cli.webcam import webcam
    from perceptual.cli.weights import fetch, weights
    from perceptual.config import to_dict
    from perceptual.errors import PerceptualError
    from perceptual.memory import keep_memory
except KeyboardInterrupt:
    sys.stderr.write("perceptual: stopped.\n")
    raise SystemExit(130) from None


def styles(arguments: Sequence[str]) -> int:
    """perceptual styles: the shipped networks that paint, with their cards."""
    return _cards("style", "perceptual styles", arguments)


def upscalers(arguments: Sequence[str]) -> int:
    """perceptual upscalers: the shipped networks that enlarge, with their cards."""
    return _cards("upscale", "perceptual upscalers", arguments)


def _cards(task: str, command: str, arguments: Sequence[str]) -> int:
    def listing(names: tyro.conf.Positional[tuple[str, ...]] = (), json: bool = False) -> tuple[tuple[str, ...], bool]:
        """List the networks that come with perceptual, or show the whole card of some.

        Args:
            names: Shipped styles and networks, or trained files, whose cards to show in full; all in brief when left
                out.
            json: Print the cards as JSON.
        """
        return names, json

    wanted, as_json = tyro.cli(listing, args=arguments, prog=command)
    from perceptual.checkpoints import find_network, find_style, read_card, shipped

    def find(name: str) -> Path:
        return find_style(name)[0] if task == "style" else find_network(name, task=task)

    files = {name: find(name) for name in wanted} if wanted else shipped.networks(task)
    cards = {name: to_dict(read_card(path)) for name, path in files.items()}
    if as_json or wanted:
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
    """perceptual --version."""
    from importlib.metadata import version as installed

    show(f"perceptual {installed('perceptual')}")
    return 0


def commands() -> dict[str, tuple[Callable[[Sequence[str]], int], str]]:
    """{name: (function of its arguments, one line for --help)}, with a command for every task of the registry."""
    return {
        "stylize": (stylize, "paint photographs in a style"),
        "upscale": (upscale, "enlarge pictures"),
        "video": (video, "paint or enlarge a film, with its sound"),
        "webcam": (webcam, "paint what a camera sees, live in a window"),
        "styles": (styles, "list the styles that come with perceptual, with their cards"),
        "upscalers": (upscalers, "list the networks that enlarge, with their cards"),
        **train_commands(),
        "optimize style": (optimize_style, "paint one photograph by optimising its pixels (Gatys), the slow way"),
        "optimize invert": (invert, "rebuild a picture from its features at one layer"),
        "optimize texture": (texture, "make a texture with the style of a picture"),
        "evaluate sr": (evaluate_sr, "measure super-resolution by the paper's protocol, with its tables and figures"),
        "reproduce": (reproduce, "repeat an experiment of the paper: its figure, its numbers, and how ours differ"),
        "weights": (weights, "list the loss networks that training uses"),
        "weights fetch": (fetch, "download the weights of a loss network"),
        "--version": (version, "print the version"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors that a user can mend are one sentence on stderr."""
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except PerceptualError as error:
        say(f"perceptual: {error}")
    except KeyboardInterrupt:
        say("perceptual: stopped.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `perceptual styles | head -1`
        drop_stdout()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            raise
        drop_stdout()  # only printing writes without the name of a file
        say(f"perceptual: {cannot_print(error)}")
    return FAILED


def _run(words: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot show is no error
    for count in (2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and name in (known := commands()):
            return known[name][0](words[count:])
    return _help(words)


def _help(words: Sequence[str]) -> int:
    if words and words[0] not in ("-h", "--help", "help"):
        typed = " ".join(words[:2])
        groups = [name for name in commands() if name.startswith(words[0] + " ")]
        close = groups or difflib.get_close_matches(words[0], commands(), n=1) or list(commands())[:1]
        say(
            f"perceptual: there is no command {typed!r}; did you mean `perceptual {close[0]}`? See `perceptual --help`."
        )
        return USAGE
    show("usage: perceptual COMMAND ...    (`perceptual COMMAND --help` tells its options)\n", lines=True)
    for name, (_, about) in commands().items():
        show(f"  {name:16} {about}")
    return 0 if words else USAGE


def others_run(loadavg: Path = Path("/proc/loadavg")) -> bool:
    """Whether other work has the processors: threads that wait for each other should then sleep.

    By default they spin, which is quicker on an idle computer. Beside other work a spinning thread takes the time of
    the one that it waits for, and a picture takes several times as long.
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
    """Entry point of the installed command.

    Two things that a short command waits for in vain: the collector, which would look through PyTorch's modules ten
    times while they load, and taking them all down again at the end. Freed memory is kept for the next layer.
    """
    keep_memory()
    gc.set_threshold(100_000, 50, 50)
    if sys.platform == "linux" and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ) and others_run():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when PyTorch is imported
    code = main()
    ends_clean = ("stylize", "upscale", "video", "styles", "upscalers")  # which leave nothing to close
    if sys.argv[1:2] and sys.argv[1] in ends_clean:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
