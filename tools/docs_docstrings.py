"""Prepares the docstrings for the documentation: a griffe extension (see mkdocs.yml).

A line "name: text" about a parameter or a field, with the indented lines below it, goes into a section "Args:" or
"Attributes:". Lines that start with >>> become a block of code. Each error of "Raises:" gets its own line.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ABOUT = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*): (?P<text>\S.*(?:\n[ ]+\S.*)*)\n?", re.M)
EXAMPLE = re.compile(r"(?:^(?:>>>|\.\.\.) .*\n?)+", re.M)


class Sections(griffe.Extension):
    """Changes the docstring of each function and class before it is shown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None or not (obj.is_function or obj.is_class):
            return
        attributes = [name for name, member in obj.members.items() if member.is_attribute]
        known = [parameter.name for parameter in obj.parameters] if obj.is_function else attributes
        obj.docstring.value = sections(obj.docstring.value, known, "Args" if obj.is_function else "Attributes")


def sections(text: str, known: list[str], title: str) -> str:
    """The text with its "name: text" lines in a section, if each name is a known one."""
    entries = []

    def move(match: re.Match[str]) -> str:
        names = [name.strip("*") for name in match["names"].split(", ")]
        if not set(names) <= set(known):
            return match[0]
        entries.extend(f"    {name}: {' '.join(match['text'].split())}" for name in names)
        return ""

    kept = ABOUT.sub(move, text)
    kept = EXAMPLE.sub(lambda match: f"```python\n{re.sub(r'^(>>>|[.]{3}) ', '', match[0], flags=re.M)}```\n", kept)
    before, heading, after = kept.partition("\nRaises:\n")
    after = re.sub(r"\. (\w+Error): ", r".\n    \1: ", after)  # each error is an entry of its own
    if not entries:
        return before + heading + after
    return "\n\n".join((before.rstrip(), f"{title}:\n" + "\n".join(entries), f"{heading.lstrip()}{after}")).strip()
