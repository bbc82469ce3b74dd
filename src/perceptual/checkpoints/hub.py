"""Networks from the Hugging Face hub: names such as hf://user/name, and downloads into the hub's own cache.

Only safetensors files with a card of perceptual are loaded, so no code from the hub is ever run.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

from perceptual.checkpoints.card import read_card
from perceptual.errors import CheckpointError, ConfigError, OutputError, PerceptualError, shown

FILE = "model.safetensors"
"""The file that is written to a repository, and looked for first."""
_NAME = re.compile(
    r"hf:/{1,2}"  # `pathlib.Path` makes one slash of two
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/pr/\d+|[^/@]+))?(?:/(?P<file>[^@]+\.safetensors))?"
)


class Place(NamedTuple):
    """Where a network is on the hub. revision: a branch, tag or commit; None for the main branch."""

    repo: str
    revision: str | None = None
    file: str | None = None


def is_hub_name(name: str | Path) -> bool:
    """Whether a name of a network is one of the hub, such as hf://user/name."""
    return str(name).startswith("hf:/")


def parse_hub_name(name: str | Path) -> Place:
    """Parse hf://user/name, hf://user/name@revision or hf://user/name@revision/file.safetensors.

    Raises:
        CheckpointError: it is not such a name.
    """
    found = _NAME.fullmatch(str(name))
    if found is None:
        raise CheckpointError(
            f"{shown(str(name))} is not a network on the hub: write hf://user/name, hf://user/name@revision, or "
            "hf://user/name/file.safetensors; other kinds of files are not loaded."
        )
    return Place(found["repo"], found["revision"], found["file"])


def download(repo: str | Path, *, revision: str | None = None, file: str | None = None) -> Path:
    """Download a network, unless it is in the hub's cache already; returns the file there.

    repo: "user/name", or a local folder as `Model.save_pretrained` writes it. revision: a branch, tag or commit;
    default: the main branch. file: its name in the repository; default: model.safetensors, or the only .safetensors
    file that there is. HF_HUB_OFFLINE=1 uses the cache only; HF_ENDPOINT names another hub; HF_TOKEN opens private
    repositories.

    Raises:
        ConfigError: huggingface_hub is not installed.
        CheckpointError: the repository, the revision or the file does not exist, the hub cannot be reached and the file
            is not in the cache, or the file is not a network of perceptual.
    """
    if file is not None and not file.endswith(".safetensors"):
        raise CheckpointError(f"{shown(file)} is not loaded from the hub: give a .safetensors file of perceptual.")
    if os.path.isdir(repo):
        folder = Path(repo)
        return folder / (file or _choose(sorted(each.name for each in folder.glob("*.safetensors")), str(repo)))
    if os.path.isfile(repo):
        raise CheckpointError(f"{repo} is a file, not a repository or a folder: load it by `load`.")
    place = Place(str(repo), revision, file)
    hub = library()
    with explained(place, CheckpointError):
        path = _fetch(hub, place)
    try:
        read_card(path)
    except CheckpointError as error:
        reason = str(error).replace(str(path), path.name)
        raise CheckpointError(f"{place.repo} on the hub holds no network that can be used: {reason}") from error
    return path


def _fetch(hub: ModuleType, place: Place) -> Path:
    """The file in the hub's cache, downloaded if needed. Raises the errors of huggingface_hub."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hub.hf_hub_download(place.repo, place.file or FILE, revision=place.revision))
    except LocalEntryNotFoundError:  # the hub cannot be reached, and this file is not in the cache
        if place.file or not (names := _cached(hub, place)):
            raise
        name = _choose(names, place.repo)
        return Path(hub.hf_hub_download(place.repo, name, revision=place.revision, local_files_only=True))
    except EntryNotFoundError:
        names = hub.HfApi().list_repo_files(place.repo, revision=place.revision)
        held = sorted(name for name in names if name.endswith(".safetensors"))
        if place.file:
            known = f"it has {', '.join(held)}" if held else "it has no .safetensors file"
            raise CheckpointError(f"{place.repo} has no file {place.file}: {known}.") from None
        return Path(hub.hf_hub_download(place.repo, _choose(held, place.repo), revision=place.revision))


def _choose(names: Sequence[str], repo: str) -> str:
    """The file to load of a repository: model.safetensors, or the only one."""
    if FILE in names:
        return FILE
    if len(names) == 1:
        return names[0]
    if not names:
        raise CheckpointError(f"{repo} has no .safetensors file, so there is nothing to load: give another repository.")
    raise CheckpointError(f"{repo} has several networks: name one, such as hf://{repo}/{names[0]}.")


def _cached(hub: ModuleType, place: Place) -> list[str]:
    """The .safetensors files of a repository and revision in the cache."""
    wanted, folder = place.revision or "main", hub.constants.HF_HUB_CACHE
    if not os.path.isdir(folder):
        return []
    return sorted(
        file.file_name
        for repo in hub.scan_cache_dir(folder).repos
        if (repo.repo_type, repo.repo_id) == ("model", place.repo)
        for revision in repo.revisions
        if wanted in (revision.commit_hash, *revision.refs)
        for file in revision.files
        if file.file_name.endswith(".safetensors")
    )


def library() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError("The Hugging Face hub needs huggingface_hub: pip install 'perceptual[hub]'.") from error
    return huggingface_hub


@contextlib.contextmanager
def explained(place: Place, kind: type[CheckpointError] | type[OutputError]) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one sentence of an error of that kind."""
    from huggingface_hub import errors

    unreachable = cast(type[Exception], errors.HfHubHTTPError.__bases__[0])  # HTTPError of httpx or httpx2
    try:
        yield
    except PerceptualError:
        raise
    except (errors.HFValidationError, OSError, unreachable, ValueError) as error:
        raise kind(_sentence(error, place, kind)) from error


def _sentence(error: Exception, place: Place, kind: type[Exception]) -> str:
    """What went wrong and what to do."""
    from huggingface_hub import constants, errors

    repo, revision = place.repo, place.revision or "main"
    if isinstance(error, errors.HFValidationError):
        return f"{shown(repo)} is not the name of a repository: write user/name."
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is open only to those who accepted its terms: accept them on its page, and log in."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {shown(revision)}: give a branch, a tag or a commit of it."
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status == 403:
        return f"The hub does not let you write to {repo}: use a token with the right to write, or your own name."
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return f"There is no repository {repo} that you can see: check the name, or log in with `hf auth login`."
    if status is not None:
        return f"The hub answered with an error (HTTP {status}) for {repo}: try again later."
    if isinstance(error, errors.OfflineModeIsEnabled) and kind is OutputError:
        return "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it."
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)) and constants.HF_HUB_OFFLINE:
        return f"{repo} is not in the cache, and HF_HUB_OFFLINE is set: unset it, or give a file."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{repo} is not in the cache, and the hub cannot be reached: connect to the internet, or give a file."
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return f"The hub cannot be used for {repo} ({shown(why, 200)}): check the connection and the free disk space."
