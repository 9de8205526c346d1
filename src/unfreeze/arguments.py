"""The command line before Hydra reads it: paths and signs that its grammar would refuse, and `resume=`."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from unfreeze.errors import UnfreezeError

PATH_KEYS = ("data.root", "data.csv", "cache.dir", "hydra.run.dir", "hydra.sweep.dir", "resume")
_MAYBE_PATH_KEYS = {"model.weights": os.path.isfile, "objective.teacher": os.path.exists}
"""Keys whose value is a path where one is there, or where it has a slash."""

_SIGN_KEYS = ("data.columns.separator",)
"""Keys whose value may be a sign that Hydra's grammar has a use for."""

_PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)
_MULTIRUN_FLAGS = ("-m", "--multirun")


class AlreadyCompletedError(Exception):
    """A run that is to be resumed has nothing left to do."""


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments that Hydra understands.

    Paths become absolute and quoted, flags stand first; `resume=<run>` brings back the overrides that the run was
    started with, before the ones typed now, and sends the output into the run's own directory. Doing it twice changes
    nothing.

    Raises:
        UnfreezeError: If there is no run to resume.
        AlreadyCompletedError: If the run to resume is complete.
    """
    typed = [_with_quoted_value(argument) for argument in arguments]
    resume = next((_unquote(argument.partition("=")[2]) for argument in typed if argument.startswith("resume=")), None)
    # Flags first, wherever they were typed: argparse takes overrides in one piece only.
    flags = [argument for argument in typed if not _is_override(argument)]
    overrides = [argument for argument in typed if _is_override(argument)]
    if resume in (None, "null", ""):
        return [*flags, *overrides]
    assert resume is not None
    if any(flag in typed for flag in _MULTIRUN_FLAGS):
        raise UnfreezeError("resume: one run at a time goes on; leave -m out")
    saved = _saved_overrides(Path(resume))
    overrides.append(f"hydra.run.dir={_quote(resume)}")
    chosen = {override_key(override): override for override in [*saved, *overrides]}
    return [*flags, *chosen.values()]


def override_key(override: str) -> str:
    """Return the key of a Hydra override, without its prefix."""
    return override.partition("=")[0].lstrip("+~")


def _is_override(argument: str) -> bool:
    """Tell overrides from flags and the values that stand behind flags, as in `--config-dir mine`."""
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _saved_overrides(run: Path) -> list[str]:
    file = run / "overrides.yaml"
    if not file.is_file():
        raise UnfreezeError(f"resume: no run in {str(run)!r}; want the directory of one, such as outputs/<date>/<run>")
    result = run / "result.json"
    if result.is_file() and json.loads(result.read_text(encoding="utf-8")).get("status") == "completed":
        raise AlreadyCompletedError(f"{run} has completed; nothing is left to do. Its figures are in {result}")
    saved = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    return [str(override) for override in saved]


def _with_quoted_value(argument: str) -> str:
    key, separator, value = argument.partition("=")
    if not separator or argument.startswith("-"):
        return argument
    name = key.lstrip("+")
    if name in PATH_KEYS or (name in _MAYBE_PATH_KEYS and _looks_like_path(value, _MAYBE_PATH_KEYS[name])):
        return f"{key}={_absolute(value)}"
    if name in _SIGN_KEYS and value != "null":
        return f"{key}={_quote(_unquote(value))}"
    return argument


def _absolute(value: str) -> str:
    plain = _unquote(value)
    if plain in ("", "null", "???") or plain.startswith("${"):
        return value
    if "," in plain and plain == value and not os.path.lexists(os.path.expanduser(plain)):
        return value  # a sweep over several paths
    return _quote(os.path.abspath(os.path.expanduser(plain)))


def _looks_like_path(value: str, is_there: Callable[[str], bool]) -> bool:
    plain = _unquote(value)
    return "/" in plain or is_there(os.path.expanduser(plain))


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        # Hydra halves backslashes before a quote or the end, OmegaConf those before an interpolation.
        return re.sub(rf"\\+(?={value[0]}|$|\$\{{)", lambda run: run[0][: len(run[0]) // 2], value[1:-1])
    return value


def _quote(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = re.sub(r"(\\*)(\$\{|')", r"\1\1\\\2", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"
