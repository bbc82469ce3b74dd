"""LICENSE-WEIGHTS says of every shipped network what its card says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from perceptual import checkpoints
from perceptual.losses.weights import PRETRAINED

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "LICENSE-WEIGHTS").read_text("utf-8")
NETWORKS = sorted((ROOT / "src" / "perceptual" / "models").rglob("*.safetensors"))


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_the_licence_agrees_with_the_card(path: Path) -> None:
    card = checkpoints.read_card(path)
    (line,) = re.findall(rf"^  {path.stem}  +(.*)$", TEXT, flags=re.M)
    names = {sha256: name for name, entry in PRETRAINED.items() for sha256 in [f.sha256 for f in entry.files]}
    assert {names[sha256] for sha256 in card.loss_networks.values()} == set(card.loss_networks)
    assert line.startswith(", ".join(sorted(card.loss_networks)) or "none")
    assert card.licence.startswith("Apache-2.0")
    for title in card.titles.values():
        assert f"\n  {title}\n" in TEXT
    for number in re.findall(r"(\d+) of ", card.data):
        assert re.search(rf"^ +{number}  ", TEXT, flags=re.M)
    assert "1,500" in TEXT
    assert re.match("1,?500 photo(graph)?s", card.data)


def test_every_network_of_the_table_is_shipped() -> None:
    table = TEXT.split("  network             loss networks")[1].split("\n\n")[0].splitlines()[1:]
    names = {line.split()[0] for line in table if not line.startswith("   ")}  # further lines are indented more
    assert names == {path.stem for path in NETWORKS}


def test_the_counts_of_photos_add_up() -> None:
    part = TEXT.split("The photos\n")[1].split("The paintings\n")[0]
    assert sum(int(count) for count in re.findall(r"^ +(\d+)  \S", part, flags=re.M)) == 1500


def test_the_package_ships_it() -> None:
    assert "LICENSE-WEIGHTS" in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["license-files"]
    assert "(LICENSE-WEIGHTS)" in (ROOT / "README.md").read_text("utf-8")
