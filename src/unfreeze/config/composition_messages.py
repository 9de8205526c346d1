"""Errors of Hydra's composition, in one line of the words that a person types."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unfreeze.config.overrides import override_key
from unfreeze.errors import first_line, nearest, suggest
from unfreeze.models.catalog import SOURCES, network_names

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
"""Exceptions by which Hydra refuses to compose a configuration."""

_HELP = "python train.py --help lists them"
_UNKNOWN = re.compile(r"Could not (?:override|delete|delete from config\.) '([^']+)'")
_PAIRS = {"]": "[", "}": "{", ")": "("}


def describe_composition_error(
    error: Exception, overrides: Sequence[str], composed: DictConfig | None, folders: Sequence[Path]
) -> str:
    """Return one line that names the override that was refused and what may be typed.

    Args:
        error: One of `COMPOSITION_ERRORS`.
        overrides: As given to Hydra.
        composed: The configuration without the override at fault; None if that does not compose either.
        folders: Of configs, in the order in which they are searched.
    """
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _describe_parsing(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _describe_choice(error.missing_cfg_file, error.options or _choices_in(folders, error.missing_cfg_file))
    if several := re.match(r"Ambiguous value for argument '([^']*)'", text):
        key, _, value = several[1].partition("=")
        return f"{key}: got {value!r}, several values; type -m for a job with each, or {key}=[{value}] for a list"
    if twice := re.match(r"Multiple values for ([^ ]+)\.", text):
        return f"+{twice[1]}: the group has a choice already; type {twice[1]}=... without the +"
    if there := re.search(r"An item is already at '([^']+)'", text):
        return f"+{there[1]}: the key is there already; type {there[1]}=... without the +"
    if (unknown := _UNKNOWN.search(text)) and composed is not None:
        return _describe_key(unknown[1], composed, folders)
    if "must be a string or a list" in text and (empty := _without_value(overrides)):
        return f"{empty}: a group needs a choice; want one of {', '.join(_choices_in(folders, f'{empty}/'))}"
    return _describe_other(error, overrides)


def known_keys(composed: DictConfig, *, with_hydra: bool = False) -> list[str]:
    """Return the dotted keys of a configuration, those of mappings among them."""
    keys = _keys_below(OmegaConf.to_container(composed, resolve=False), "")
    return [key for key in keys if with_hydra or not key.startswith("hydra")]


def _keys_below(node: Any, prefix: str) -> Iterable[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _keys_below(value, f"{prefix}{key}.")


def _describe_parsing(error: OverrideParseException) -> str:
    key, separator, value = error.override.partition("=")
    if not separator:
        return f"{error.override!r}: want key=value, such as model=resnet50; {_HELP}"
    advice = f"put a value with spaces or signs in quotes inside the shell's, \"{key}='...'\""
    reason = _describe_brackets(value) or "it has signs that the grammar of overrides reserves"
    return f"{key}: {value!r} can't be parsed: {reason}; {advice}"


def _describe_brackets(value: str) -> str:
    """Return which bracket or quote is alone in a value; nothing where all are in pairs."""
    opened: list[str] = []
    quote = ""
    for sign in value:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            return f"a {sign} closes no {_PAIRS[sign]}"
    return f"a {quote or opened[-1]} is not closed" if quote or opened else ""


def _describe_choice(missing: str, options: Sequence[str]) -> str:
    group, _, choice = missing.rpartition("/")
    if not group:
        return f"--config-name: no config {choice!r}; leave it out, or name one in the folder of --config-dir"
    if not choice or choice == "null":
        return f"{group}: a group needs a choice; want one of {', '.join(options)}"
    if group == "model" and (source := next((each for each in SOURCES if choice in network_names(each)), None)):
        return f"model: no choice {choice!r}, but {source} has such a network; type model={source} model.name={choice}"
    near = nearest(choice, options)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    return f"{group}: no choice {choice!r}; {hint}want one of {', '.join(options)}"


def _describe_key(given: str, composed: DictConfig, folders: Sequence[Path]) -> str:
    key = given.partition("@")[0]
    if key in composed and key != given:
        return f"{given}: a group is chosen by its name alone; type {key}=..."
    group, _, rest = key.partition(".")
    stages = re.match(r"(.*)\.\d+(\.|$)", key)
    if stages and OmegaConf.is_list(OmegaConf.select(composed, stages[1])):
        return f"{key}: the items of a list are typed together; type {stages[1]}=[...]"
    if others := [file.stem for file in _files_of(folders, group) if rest and _has_key(file, rest)]:
        return f"{key}: not a key of the {group} that is chosen; type {group}={' or '.join(others)} beside it"
    known = known_keys(composed, with_hydra=group == "hydra")
    ends = [name for name in known if name.endswith(f".{key}")]
    near = ends or nearest(key, known, limit=3)
    if not near:
        near = [name for name in known if name.rpartition(".")[2] in nearest(key, _ends(known), limit=3)]
    wanted = ", ".join(near[:3]) or suggest(key, [str(name) for name in composed if name != "hydra"], limit=20)
    return f"{key}: there is no such key; want one of {wanted}; {_HELP}"


def _describe_other(error: Exception, overrides: Sequence[str]) -> str:
    """Return the error's first line behind the key that it is about, where that is known."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}: line {error.problem_mark.line + 1} is no YAML ({error.problem})"
    about = getattr(error, "full_key", None)
    inserted = [override_key(override) for override in overrides if "${" in override]
    key = inserted[0] if inserted else about
    return f"{key}: {first_line(error)}" if key else first_line(error)


def _ends(keys: Sequence[str]) -> list[str]:
    return sorted({key.rpartition(".")[2] for key in keys})


def _without_value(overrides: Sequence[str]) -> str:
    return next((override_key(each) for each in overrides if each.partition("=")[2] in ("null", "{}")), "")


def _choices_in(folders: Sequence[Path], missing: str) -> list[str]:
    return sorted({file.stem for file in _files_of(folders, missing.rpartition("/")[0])})


def _files_of(folders: Sequence[Path], group: str) -> list[Path]:
    return sorted(file for folder in folders for file in (folder / group).glob("*.yaml")) if group else []


def _has_key(file: Path, key: str) -> bool:
    """Return whether a choice's file has a dotted key."""
    try:
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
