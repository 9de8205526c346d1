"""The errors of a configuration in one line, by the keys that a person types."""

from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unfreeze.errors import suggest


def describe_errors(error: ValidationError, schema: type[BaseModel]) -> str:
    """Return one line that names each wrong key, what it was given and what it wants.

    Args:
        error: What the schema has refused.
        schema: Whose fields have examples.
    """
    return "; ".join(_describe(details, schema) for details in _one_per_key(error.errors()))


def _one_per_key(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return the first error of each key: a union reports one for each of its members."""
    first: dict[tuple[int | str, ...], ErrorDetails] = {}
    for error in errors:
        key = tuple(part for part in error["loc"] if isinstance(part, int) or part.isidentifier())
        first.setdefault(_without_union_members(key), error)
    return list(first.values())


def _without_union_members(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    members = {"int", "str", "float", "constrained-float", "LearningRateChanges"}
    return tuple(part for part in loc if part not in members and not (isinstance(part, str) and "[" in part))


def _describe(error: ErrorDetails, schema: type[BaseModel]) -> str:
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    path = _key_path(_without_union_members(error["loc"]))
    if error["type"] == "missing":
        return f"{path}: missing; type {path}=..."
    if error["type"] == "extra_forbidden":
        known = sorted(_fields_at(schema, error["loc"]))
        name = str(error["loc"][-1])
        return f"{path}: there is no such key{f'; want one of {suggest(name, known, limit=12)}' if known else ''}"
    if error["type"] == "too_short":
        return f"{path}: got {error['input']!r}, want at least {error['ctx']['min_length']} item"
    wanted = error["msg"].replace("Input should be ", "").replace("valid dictionary", "mapping")
    wanted = wanted.removeprefix("Value should have ").removesuffix(" after validation").split(" or instance of")[0]
    example = _example_at(schema, _without_union_members(error["loc"]))
    hint = f", such as {path}={example}" if example is not None else ""
    return f"{path}: got {error['input']!r}, want {wanted}{hint}"


def _key_path(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _section_at(schema: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    section = schema
    for part in loc:
        if isinstance(part, int):
            continue
        info = section.model_fields.get(part)
        if info is None:
            return None
        inner = next(filter(_is_section, (info.annotation, *get_args(info.annotation))), None)
        if inner is None:
            return None
        section = inner
    return section


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _fields_at(schema: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    section = _section_at(schema, loc[:-1])
    return list(section.model_fields) if section else []


def _example_at(schema: type[BaseModel], loc: tuple[int | str, ...]) -> Any:
    section = _section_at(schema, loc[:-1])
    info = section.model_fields.get(str(loc[-1])) if section else None
    return info.examples[0] if info and info.examples else None
