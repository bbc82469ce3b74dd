"""Puts networks on the Hugging Face hub: a safetensors file, and a model card made from the card in it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from perceptual.checkpoints import file as checkpoint_file
from perceptual.checkpoints.card import Card, read_card
from perceptual.checkpoints.hub import FILE, Place, explained, library
from perceptual.errors import OutputError, shown
from perceptual.files import write_beside
from perceptual.networks import TransformationNetwork

_TAGS = {"style": "style-transfer", "upscale": "super-resolution"}
_CLASSES = {"style": "Stylizer", "upscale": "Upscaler"}
_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "gpl-3.0")
"""Licences that the hub knows by these names."""


def model_card(card: Card, repo: str = "user/name") -> str:
    """The README.md of a repository, with the metadata that the hub reads at its top.

    repo: the name of the repository, for the examples.

    Raises:
        ConfigError: huggingface_hub is not installed.
    """
    data = library().ModelCardData(
        library_name="perceptual",
        pipeline_tag="image-to-image",
        tags=["perceptual", *filter(None, [_TAGS.get(card.task)]), "pytorch"],
        **_licence(card.licence),
    )
    text = "\n\n".join(part for part in _parts(card, repo) if part)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def _licence(words: str) -> dict[str, str]:
    """The licence as the hub writes it: one of its names, or "other" with the first words as the name."""
    first = re.split(r"[;,(\s]", words.strip())[0].lower() if words else ""
    if first in _LICENCES:
        return {"license": first}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")[:60] or "unknown"}


def _parts(card: Card, repo: str) -> list[str]:
    """The paragraphs below the metadata."""
    name, model = repo.partition("/")[2], _CLASSES.get(card.task, "Model")
    styles = "\n".join(f"| `{_cell(each)}` | {_cell(card.titles.get(each, ''))} |" for each in card.styles)
    command = {"style": f"stylize photo.jpg --style hf://{repo}", "upscale": f"upscale photo.jpg --network hf://{repo}"}
    facts = {
        "Architecture": f"`{card.network.architecture}`",
        "Training": f"{card.steps:,} steps" + f" of recipe `{card.recipe}`" * bool(card.recipe),
        "Data": card.data or "not stated",
        "Loss networks": ", ".join(card.loss_networks) or "none",
        "Licence": card.licence or "not stated",
        "Pixels": card.pixels,
    }
    return [
        f"# {name}",
        card.about,
        "A network of the Python package `perceptual`, trained with perceptual losses after "
        "[Johnson, Alahi and Fei-Fei](https://arxiv.org/abs/1603.08155) (ECCV 2016). "
        "The file is safetensors, so loading it runs no code.",
        f"```python\nfrom perceptual import {model}\n\n"
        f'result = {model}.from_pretrained("{repo}")(image)  # a PIL image, numpy array or tensor\n```',
        f"```sh\nperceptual {command[card.task]}\n```" if card.task in command else "",
        f"| style | painting |\n| --- | --- |\n{styles}" if styles else "",
        "\n".join(f"- {name}: {' '.join(value.split())}" for name, value in facts.items()),
    ]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def save_folder(folder: str | Path, network: TransformationNetwork, card: Card, *, repo: str = "user/name") -> Path:
    """Write a network as the hub expects it: model.safetensors, and README.md. Returns the file of the network.

    The file has all weights, also where the card has a `base`. repo: as in `model_card`.

    Raises:
        ConfigError: huggingface_hub is not installed. OutputError: the folder cannot be written.
    """
    text, path = model_card(card, repo), Path(folder) / FILE
    checkpoint_file.save(path, network, dataclasses.replace(card, base=""))
    _write(path.parent / "README.md", text)
    return path


def push(path: str | Path, repo: str, *, private: bool = False, message: str = "") -> str:
    """Upload the file of a network with a model card; returns the address of the commit.

    The repository is made if there is none. A file with all weights is uploaded as it is; one with gamma and beta only
    is completed from its base network. The token is that of HF_TOKEN or of `hf auth login`.

    path: a checkpoint of perceptual. repo: "user/name". private: make a new repository private. message: of the commit.

    Raises:
        ConfigError: huggingface_hub is not installed. CheckpointError: the file is not a network of perceptual.
        OutputError: there is no token, the hub cannot be reached, it refuses, or the repository exists and is public
            although `private` is set.
    """
    card, hub = read_card(path), library()
    network, _ = checkpoint_file.load(path)
    with tempfile.TemporaryDirectory(prefix="perceptual-") as folder:
        if card.base:
            save_folder(folder, network, card, repo=repo)
        else:
            shutil.copyfile(path, Path(folder) / FILE)
            _write(Path(folder) / "README.md", model_card(card, repo))
        return push_folder(hub, Path(folder), Place(repo), private=private, message=message)


def push_folder(hub: ModuleType, folder: Path, place: Place, *, private: bool, message: str) -> str:
    """Upload the two files of `save_folder` in one commit; returns the address of the commit."""
    if place.repo.count("/") != 1:
        raise OutputError(f"{shown(place.repo)} is not the name of a repository: write user/name.")
    with explained(place, OutputError):
        if hub.get_token() is None:
            raise OutputError("There is no token for the hub: log in with `hf auth login`, or set HF_TOKEN.")
        api = hub.HfApi(library_name="perceptual")
        if private and api.repo_exists(place.repo) and not api.repo_info(place.repo).private:
            raise OutputError(f"{place.repo} is public: make it private on its page, or leave --private out.")
        api.create_repo(place.repo, private=private or None, exist_ok=True)
        files = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name))
            for name in (FILE, "README.md")
        ]
        commit = api.create_commit(place.repo, files, commit_message=message or "Upload a network of perceptual")
        return str(commit.commit_url)


def _write(path: Path, text: str) -> None:
    with write_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
