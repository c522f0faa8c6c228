"""Records from JSON objects, checked against the annotations of their class."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from speechtaxi.errors import InputError
from speechtaxi.types import Prediction, RunRecord

Record = TypeVar("Record", Prediction, RunRecord)


def record(kind: type[Record], row: dict[str, Any], where: str) -> Record:
    """Build a record from a JSON object, checked against the annotations of its class."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in row:
            if field.default is MISSING and field.default_factory is MISSING:
                raise InputError(
                    f"{where}: '{field.name}' is missing; the keys are {', '.join(row)}"
                )
            continue
        value = row[field.name]
        if not _fits(value, _hints(kind)[field.name]):
            raise InputError(f"{where}: {field.name} must be {field.type}, not {value!r}")
        values[field.name] = tuple(cast("list[Any]", value)) if isinstance(value, list) else value
    return kind(**values)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a JSON value fits an annotation: plain types, unions, tuples, mappings."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:  # a JSON list of one kind
        return isinstance(value, list) and all(
            _fits(item, inner[0]) for item in cast("list[Any]", value)
        )
    if origin is Mapping:
        return isinstance(value, dict) and all(
            _fits(item, inner[1]) for item in cast("dict[str, Any]", value).values()
        )
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
