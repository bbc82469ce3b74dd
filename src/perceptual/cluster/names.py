"""Names of files here and elsewhere: which are URLs, and listing, reading and writing them through fsspec."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perceptual.errors import ConfigError, ImageError, OutputError, PerceptualError

SCHEMES = ("s3", "s3a", "memory")
"""The kinds of URL that are read and written. In all of them a file appears whole or not at all, because they have no
open files, only whole ones. memory is for tests: it holds the files of this process."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def as_url(name: str | Path) -> str | None:
    """The URL that a name is, such as s3://bucket/a.jpg; None for a path on this machine.

    A Path shortens s3://bucket to s3:/bucket; such a name is a URL too, unless there is a file of that name.

    Raises:
        ConfigError: a URL of an unknown kind, or without a bucket.
    """
    found = _URL.fullmatch(str(name))
    if found is None or os.path.lexists(name):
        return None
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        return None
    if scheme not in SCHEMES:
        raise ConfigError(f"{scheme}:// is not supported: give a path, or a URL that begins with s3://.")
    if scheme != "memory" and not rest.strip("/"):
        raise ConfigError(f"{name} names no bucket: write {scheme}://bucket/folder.")
    return f"{scheme}://{rest}"


def without_file_scheme(name: str) -> str:
    """The same name without file://, as a path."""
    found = _URL.fullmatch(name)
    return f"/{found[2]}" if found and found[1].lower() == "file" and not os.path.lexists(name) else name


def filesystem(url: str) -> Any:
    """The file system of fsspec for a URL. Listings are not kept, because other processes write there too.

    Raises:
        ConfigError: fsspec or s3fs is not installed.
    """
    try:
        import fsspec

        return fsspec.filesystem(url.partition("://")[0], use_listings_cache=False)
    except ImportError as error:
        raise ConfigError(f"{url} needs fsspec and s3fs: run `pip install 'perceptual[ray]'`.") from error


@contextlib.contextmanager
def sentences(name: str, kind: type[PerceptualError]) -> Iterator[None]:
    """Turn the errors of file systems into one sentence that says the fix.

    name: the file or folder that is read or written. kind: the exception to raise.
    """
    try:
        yield
    except PerceptualError:
        raise
    except Exception as error:  # each library of S3 has its own exceptions; those of bugs pass
        what = type(error).__name__
        bucket = name.split("/")[2] if "://" in name else name
        text = f"{name}: {' '.join(str(error).split()).rstrip('.')}."
        if what in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"):
            text = (
                f"{name}: no credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
                "`aws configure`."
            )
        elif what in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionError", "ReadTimeoutError"):
            text = f"{name}: the S3 service cannot be reached: check the network and AWS_ENDPOINT_URL."
        elif isinstance(error, PermissionError):
            text = f"{name}: access is denied: check the credentials and the permissions of the bucket {bucket}."
        elif isinstance(error, FileNotFoundError) and "bucket" in str(error):
            text = f"{name}: there is no bucket {bucket}: check its name, or create it."
        elif isinstance(error, FileNotFoundError):
            text = f"{name} does not exist: check the name."
        elif not isinstance(error, OSError) and not type(error).__module__.startswith(("botocore", "aiohttp", "s3fs")):
            raise
        raise kind(text) from error


def key_of(url: str) -> str:
    """The name of a URL inside its file system: s3://bucket/a.jpg -> bucket/a.jpg."""
    key = url.partition("://")[2]
    return f"/{key}" if url.startswith("memory://") else key


def list_below(url: str) -> list[str]:
    """The names of all files below a folder, relative to it, sorted. Empty if there is none.

    Raises:
        ImageError: the bucket does not exist or cannot be read.
    """
    root = key_of(url).rstrip("/") + "/"
    with sentences(url, ImageError):
        try:
            found = filesystem(url).find(root)
        except FileNotFoundError as error:
            if "bucket" in str(error):
                raise
            found = []
    return sorted(name[len(root) :] for name in found if name.startswith(root) and not name.endswith("/"))


def is_file(url: str) -> bool:
    """Whether a URL is one file, and not a folder."""
    with sentences(url, ImageError):
        return not url.endswith("/") and bool(filesystem(url).isfile(key_of(url)))


def is_there(url: str) -> bool:
    """Whether there is a file at this URL."""
    with sentences(url, OutputError):
        return bool(filesystem(url).exists(key_of(url)))


def check_bucket(url: str) -> None:
    """Check before the work that the bucket of an output exists.

    Raises:
        OutputError: it does not exist, or there is no access.
    """
    if not url.startswith("memory://"):  # which has no buckets
        with sentences(url, OutputError):
            try:
                filesystem(url).info(key_of(url).partition("/")[0])
            except FileNotFoundError as error:
                raise FileNotFoundError("no such bucket") from error


def fetch(url: str, path: Path) -> None:
    """Copy a file from a URL to a path.

    Raises:
        ImageError: it cannot be read.
    """
    with sentences(url, ImageError):
        filesystem(url).get_file(key_of(url), str(path))


def store(path: Path, url: str) -> None:
    """Copy a file from a path to a URL. It appears there whole or not at all: S3 shows a key once a PUT is complete.

    Raises:
        OutputError: it cannot be written.
    """
    with sentences(url, OutputError):
        filesystem(url).put_file(str(path), key_of(url))
