"""The text below each field of a settings dataclass, for --help, the reference and the OpenAPI document."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any


@functools.cache
def field_docs(kind: Any) -> dict[str, str]:
    """The text below each field of a dataclass, and of those it inherits from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        found |= dict(_documented(each)) if dataclasses.is_dataclass(each) else {}
    return found


def _documented(kind: Any) -> Iterator[tuple[str, str]]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError):  # made in memory, without source
        return
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target), inspect.cleandoc(str(text.value.value))
