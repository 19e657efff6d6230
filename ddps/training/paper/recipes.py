"""Recipes by name or file, and single settings changed on the way."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ...config import build
from ...errors import InputError
from .config import Recipe


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.name.removesuffix(".json") for path in _folder().iterdir() if path.name.endswith(".json")))


def load_recipe(source: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        source: name of one that comes with the package, or a JSON file of the same form.
        changes: "key=value" each, the key with dots as in the file ("optimizer.lr=1e-4", "model.schedule.kind=cosine"),
            the value as JSON, or a bare word.

    Raises:
        InputError: no such recipe, a key that it does not have, or a value that does not fit there.
    """
    data = _read(source)
    for change in changes:
        _change(data, change)
    return build(Recipe, data, "recipe")


def _read(source: str | Path) -> dict[str, Any]:
    name = str(source)
    if name in recipe_names():
        text = (_folder() / f"{name}.json").read_text(encoding="utf-8")
    elif name.endswith(".json"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise InputError("the file of a recipe", f"{name!r}, which cannot be read", "checking the path") from None
    else:
        hint = f"one of {', '.join(recipe_names())}"
        raise InputError("the name of a recipe, or a JSON file", repr(name)[:80], hint)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} as JSON", str(error)[:120], "correcting it") from None
    if not isinstance(data, dict):
        raise InputError(f"{name} as a JSON object", type(data).__name__, "a copy of a recipe of the package")
    return data


def _change(data: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise InputError("a setting as key=value", repr(change)[:80], "optimizer.lr=1e-4")
    *path, last = key.split(".")
    part: Any = data
    for step in path:
        part = part.get(step) if isinstance(part, dict) else None
    if not isinstance(part, dict) or last not in part:
        there = part if isinstance(part, dict) else data
        raise InputError("a setting that the recipe has", repr(key)[:80], f"one of {', '.join(there)} there")
    part[last] = _value(text, part[last])


def _value(text: str, before: Any) -> Any:
    if isinstance(before, str):
        # "1" is a name, too
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _folder() -> Any:
    return resources.files("ddps.training") / "recipes"
