"""The output of an experiment: a figure (PNG and PDF), its numbers (CSV and JSON), and a page in Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perceptual.config import EvaluateConfig, ReproduceConfig, to_dict
from perceptual.devices import choose_device
from perceptual.errors import ConfigError, OutputError
from perceptual.files import exists, write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Config = ReproduceConfig | EvaluateConfig
ENDS = ("md", "png", "pdf", "csv", "json")


@dataclass
class Report:
    """The result of one experiment.

    name: name of the files, such as figure5.
    title: title of the page.
    figure: a figure of matplotlib.
    rows: all numbers, one dictionary for each row of the CSV file.
    table: the rows that the page shows.
    paper: what the paper found, as text.
    found: what was found here, as text.
    differences: sentences about differences from the paper's set-up.
    skipped: an error for each image that was left out.
    """

    name: str
    title: str
    figure: Figure
    rows: Sequence[Row]
    table: Sequence[Row]
    paper: str
    found: str = ""
    differences: Sequence[str] = field(default_factory=list)
    skipped: Sequence[Exception] = ()


def check_out(name: str, out: Path, *, overwrite: bool) -> None:
    """Check, before the work, that a report will not replace files of other programs in `out`.

    Raises:
        OutputError: there are such files and `overwrite` is False, or as in `files.exists`.
    """
    there = [path for path in (out / f"{name}.{end}" for end in ENDS) if exists(path)]
    if there and not overwrite and not _is_report(out / f"{name}.json", name):
        raise OutputError(
            f"{there[0]} exists, and this command did not write it: choose another --out, or add --overwrite."
        )


def _is_report(path: Path, name: str) -> bool:
    """True if a file is the JSON file of a report with this name, as `write` makes it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("name") == name and {"machine", "settings", "rows"} <= set(found)


def write(report: Report, out: Path, config: Config) -> list[Path]:
    """Write NAME.png, .pdf, .csv, .json and .md to the folder `out`; returns the paths, the page first.

    Raises:
        OutputError: a file cannot be written.
    """
    paths = [out / f"{report.name}.{end}" for end in ENDS]
    for path, options in ((paths[1], {"dpi": 150}), (paths[2], {"dpi": 200, "metadata": {"CreationDate": None}})):
        with write_beside(path) as temporary:
            report.figure.savefig(temporary, **options)
    numbers: dict[str, Any] = {"name": report.name, "machine": machine(config.device)}
    numbers |= {"settings": non_default_settings(config), "table": list(report.table)}
    texts = (
        _page(report, config),
        as_csv(report.rows),
        json.dumps(_finite({**numbers, "rows": list(report.rows)}), indent=1) + "\n",
    )
    for path, text in zip((paths[0], *paths[3:]), texts, strict=True):
        with write_beside(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no text
    return paths


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text of a CSV file, with a column for every name in any of them."""
    lines = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(lines, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


def _page(report: Report, config: Config) -> str:
    differences = "\n".join(f"- {line}" for line in report.differences) or "- None."
    return f"""# {report.title}

![{report.title}]({report.name}.png)

```sh
{command(report.name, config)}
```

{table(report.table)}

**Here.** {report.found}

**The paper.** {report.paper}

## What differs from the paper's set-up

{differences}

Measured on {machine(config.device)}. All numbers: [{report.name}.csv]({report.name}.csv).
"""


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of rows with the same keys; floats are shown with four significant digits."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def non_default_settings(config: Config) -> dict[str, Any]:
    """The settings that differ from the defaults, except weights and device. Paths are reduced to their last part."""
    default, chosen = to_dict(type(config)()), to_dict(config)
    for key in ("photos", "paintings", "data"):
        if chosen.get(key):
            chosen[key] = f"{Path(chosen[key]).name}/"
    for key in ("network", "networks"):
        if chosen.get(key):
            value = chosen[key]
            chosen[key] = Path(value).name if isinstance(value, str) else [Path(path).name for path in value]
    return {key: chosen[key] for key in default if chosen[key] != default[key] and key not in ("weights", "device")}


def command(name: str, config: Config) -> str:
    """The command line that creates a report."""
    first = ["reproduce", name] if isinstance(config, ReproduceConfig) else ["evaluate", "sr"]
    words = ["perceptual", *first, "--out", "FOLDER"]
    for key, value in non_default_settings(config).items():
        words += [f"--{key}", *map(str, value if isinstance(value, list) else [] if value is True else [value])]
    return shlex.join(words)


def machine(device: str = "auto") -> str:
    """A description of a device and the versions of the software, for the report."""
    processor = platform.processor() or platform.machine()
    if os.path.isfile("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if "model name" in line), processor)
    chosen = choose_device(device)
    unit = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"threads: {torch.get_num_threads()}"
    return f"{processor}, {unit}, torch {torch.__version__}, perceptual {version('perceptual')}"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of matplotlib that needs no screen. width, height: in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Figures need matplotlib: pip install 'perceptual[reproduce]'.") from error
    return Figure((width, height), layout="constrained")


def sheet(rows: Sequence[Sequence[tuple[str, Tensor | str]]], *, inches: float = 2.0) -> Figure:
    """A figure with rows of (label, image or text); the label is above the image.

    Images are (1, 3, H, W) in [0, 1]; each is shown `inches` wide.
    """
    columns = max(map(len, rows))
    figure = new_figure(inches * columns, inches * 1.14 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, (label, picture) in zip(line, row, strict=False):
            axis.set_title(label, fontsize=8, pad=3, parse_math=False)  # a file name may have $ signs
            if isinstance(picture, str):
                axis.set_box_aspect(1)
                axis.text(0.5, 0.5, picture, ha="center", va="center", fontsize=8, wrap=True, parse_math=False)
            else:
                axis.imshow(picture[0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="antialiased")
    return figure


def _finite(value: Any) -> Any:
    """Replace infinity and not-a-number by text, because JSON does not support them."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
