"""The packages part of `perceptual doctor`: versions, and which extra brings each optional library."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "missing", "broken"]


class Check(NamedTuple):
    """One line of the report.

    group: the heading that it stands under. name: what was looked at. value: what was found. state: "missing" for an
    optional part, "broken" for an essential part that does not work. fix: the command that repairs it; "" for none.
    """

    group: str
    name: str
    value: str
    state: State = "ok"
    fix: str = ""


REQUIRED, OPTIONAL = "Packages", "Optional packages"
_MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL.Image", "safetensors": "safetensors.torch"}
_SLOW = {"accelerate"}
"""Not imported here, because that takes a second."""
_FOR_DEVELOPERS = {"benchmark", "demo", "dev", "docs"}


def required() -> Iterator[Check]:
    """The package itself, Python, and each package that it needs. These are imported, so a damaged one is found."""
    try:
        version = metadata.version("perceptual")
    except metadata.PackageNotFoundError:
        version = "not installed, only its source is found"
    yield Check(REQUIRED, "perceptual", f"{version}, in {Path(__file__).parents[1]}")
    yield Check(REQUIRED, "Python", f"{platform.python_version()} on {platform.platform()}")
    for requirement in _requirements().get("", []):
        yield _imported(requirement)


def optional() -> Iterator[Check]:
    """The packages of each extra. They are looked up, not imported: that takes seconds."""
    for extra, requirements in _requirements().items():
        if not extra or extra in _FOR_DEVELOPERS:
            continue
        versions = {each.name: _version(each.name) for each in requirements}
        old = [each for each in requirements if (found := versions[each.name]) and not _fits(found, each)]
        text = ", ".join(f"{name} {version or 'is missing'}" for name, version in versions.items())
        text += "".join(f" ({each.name}{each.specifier} is needed)" for each in old)
        if old or None in versions.values():
            yield Check(OPTIONAL, extra, text, "missing", f"pip install 'perceptual[{extra}]'")
        else:
            yield Check(OPTIONAL, extra, text)


def _requirements() -> dict[str, list[Requirement]]:
    """The requirements of perceptual by extra, those without an extra under ""."""
    from packaging.requirements import Requirement

    found: dict[str, list[Requirement]] = {"": []}
    extras = metadata.metadata("perceptual").get_all("Provides-Extra") or []
    for requirement in map(Requirement, metadata.requires("perceptual") or []):
        named = [e for e in extras if requirement.marker and not requirement.marker.evaluate({"extra": ""})
                 and requirement.marker.evaluate({"extra": e})]  # fmt: skip
        if requirement.name == "perceptual" or (requirement.marker and not requirement.marker.evaluate() and not named):
            continue  # an extra that repeats other extras, or a package for another system
        for extra in named or [""]:
            found.setdefault(extra, []).append(requirement)
    return found


def _fits(version: str, requirement: Requirement) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


def _version(name: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _imported(requirement: Requirement) -> Check:
    """Import one package that is needed, and compare its version."""
    name, fix = requirement.name, f"pip install '{requirement}'"
    module = _MODULES.get(name, name.replace("-", "_"))
    try:
        if name not in _SLOW:
            version = _version(name) or getattr(import_module(module.partition(".")[0]), "__version__", None)
            import_module(module)
        else:
            version = _version(name)
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}")
    except ModuleNotFoundError as error:
        return Check(REQUIRED, name, " ".join(str(error).split()), "broken", fix)
    except Exception as error:  # a damaged package can raise anything, such as an OSError for a missing library
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return Check(REQUIRED, name, f"cannot be imported ({why})", "broken", fix + " --force-reinstall")
    if version and not _fits(version, requirement):
        return Check(REQUIRED, name, f"{version}, which is too old", "broken", fix)
    return Check(REQUIRED, name, version or "of unknown version")
