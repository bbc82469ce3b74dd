"""The Dockerfile, as far as it can be tested without Docker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

from test_serve import serving_here

from perceptual.config import ServeConfig

FILE = Path(__file__).parents[1] / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of the Dockerfile, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.partition(" ") for line in text.splitlines() if line)
    return [(name, " ".join(rest.split())) for name, _, rest in lines]


def last(name: str) -> str:
    """The words of the last instruction of that name."""
    return [words for each, words in instructions() if each == name][-1]


def test_the_build_needs_no_network_and_copies_wheels_only() -> None:
    assert [words for name, words in instructions() if name == "COPY"] == [
        "wheelhouse/ /wheels/",
        "dist/*.whl /dist/",
        "--from=build /opt/perceptual /opt/perceptual",
    ]
    (run,) = [words for name, words in instructions() if name == "RUN"]
    assert "pip install --no-index --find-links /wheels" in run
    assert not re.search(r"https?:|curl|wget|apt|git ", run)
    assert "ADD" not in [name for name, _ in instructions()]
    ignored = (FILE.parents[1] / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored == ["*", "!dist/*.whl", "!wheelhouse"]


def test_it_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert names.index("USER") > len(names) - 1 - names[::-1].index("FROM")


def test_it_runs_the_service_on_every_address_of_the_container() -> None:
    from perceptual.cli.help import parse
    from perceptual.cli.serve import _Serve

    command, *words = json.loads(last("ENTRYPOINT")) + json.loads(last("CMD"))
    assert (command, words[0]) == ("perceptual", "serve")
    config = parse(_Serve, words[1:], "serve")
    assert (config.host, config.port) == ("0.0.0.0", ServeConfig.port)
    assert last("EXPOSE") == str(ServeConfig.port)
    assert last("STOPSIGNAL") == "SIGTERM"


def test_its_health_check_passes_if_the_service_is_ready_and_fails_if_it_is_not() -> None:
    python, *words = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert (python, words[0]) == ("python", "-c")
    assert f":{ServeConfig.port}/" in words[1]

    def code(port: int) -> int:
        check = words[1].replace(str(ServeConfig.port), str(port))
        return subprocess.run([sys.executable, "-c", check], stderr=subprocess.DEVNULL).returncode

    with serving_here() as (service, port):
        ready = threading.Event()
        service.queue.soon(ready.set)  # the work before it makes the service ready
        ready.wait()
        assert code(port) == 0
        service.queue.stop()
        assert code(port) != 0
    assert code(port) != 0
