"""A folder with a static page that paints in the browser: the network, the page and ONNX Runtime Web."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

import torch

from perceptual.errors import OutputError
from perceptual.events import Step
from perceptual.export.graph import Graph, Source, find, to_onnx
from perceptual.export.parity import check, compare
from perceptual.export.precision import packed
from perceptual.files import check_folder, write_beside

# The page last: it is not there before the files it loads.
PAGE = ("page.css", "noise.js", "painter.js", "page.js", "index.html")
NETWORK, FACTS = "network.onnx", "network.json"


def export_page(name: str, folder: str | Path, *, files: Mapping[str, bytes]) -> Iterator[Step]:
    """Write a page that paints, or enlarges, photos and the camera in the browser. Any static web server can send it.

    Files of the same names in the folder are replaced; others stay.

    name: as in `export_onnx`. folder: is made if it is missing. files: those of `runtime.files`. Yields a Step for
    each file; the last one has the number of bytes of the network as its result.

    Raises:
        ConfigError, CheckpointError, OutputError: as in `export_onnx`.
    """
    source, target = find(name), Path(folder)
    if target.is_file():
        raise OutputError(f"{target} is a file: give the name of a folder for the page.")
    check_folder(target)
    graph = Graph(source, levels=True, pattern_inside=False)
    model = packed(to_onnx(graph, source))
    check(name, compare(graph, model))
    written = {f"runtime/{each}": content for each, content in files.items()}
    written |= {NETWORK: model, FACTS: facts(source, graph)}
    page = resources.files("perceptual") / "export" / "page"
    written |= {each: (page / each).read_bytes() for each in PAGE}
    for index, (each, content) in enumerate(written.items()):
        yield Step(index, len(written))
        with write_beside(target / each) as temporary:
            temporary.write_bytes(content)
    yield Step(len(written), len(written), result=len(model))


def facts(source: Source, graph: Graph) -> bytes:
    """What the page has to know about the network, as JSON."""
    card = source.card
    names = card.styles if source.several else card.styles[:0]
    found = {
        "noise": graph.amount,
        "scale": source.model.network.scale,
        "inputs": list(graph.inputs(torch.zeros(1, 3, 1, 1))),
        "styles": [{"name": style, "title": card.titles.get(style, "")} for style in names],
        "about": card.about,
        "licence": card.licence,
    }
    return json.dumps(found, ensure_ascii=False, indent=1).encode()
