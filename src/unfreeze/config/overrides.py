"""The command line before Hydra reads it: paths and signs that its grammar would refuse, and `resume=`."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from unfreeze.errors import UnfreezeError, nearest
from unfreeze.results.run_directory import RunDirectory

PATH_KEYS = ("data.root", "data.csv", "cache.dir", "hydra.run.dir", "hydra.sweep.dir", "resume")
_UNSWEPT_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "resume")
"""Keys of one path for all jobs of a multirun."""

_MAYBE_PATH_KEYS: dict[str, Callable[[str], bool]] = {
    "model.weights": lambda value: "/" in value or os.path.isfile(value),
    "model.repo": lambda value: value.startswith(("/", "./", "../")) or os.path.isdir(value),
    "objective.teacher": lambda value: "/" in value or os.path.lexists(value),
}
"""Keys whose value may be a path, and whether it is one, `~` being expanded."""

_HYDRA_PATH_KEYS = ("hydra.run.dir", "hydra.sweep.dir")

_SIGN_KEYS = ("data.columns.separator",)
"""Keys whose value may be a sign that Hydra's grammar has a use for."""

_SWEPT = re.compile(r"(choice|shuffle|sort|glob|range|interval|tag|extend_list|int|str|bool|float)\(.*\)", re.DOTALL)
_PART = re.compile(r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,])+""", re.DOTALL)
_PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)
_MULTIRUN_FLAGS = ("-m", "--multirun")
_FLAGS = {
    **dict.fromkeys(_MULTIRUN_FLAGS, False),
    **dict.fromkeys(("-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run"), False),
    **dict.fromkeys(("-sc", "--shell-completion"), False),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"), True),
    **dict.fromkeys(("-cd", "--config-dir", "-i", "--info", "--experimental-rerun"), True),
}
"""Flags of Hydra, and whether the next argument is their value."""

_CONFIGS = ("job", "hydra", "all")
"""Values of --cfg."""

COMMANDS = (
    *(
        "train",
        "plan",
        "audit",
        "soup",
        "report",
        "evaluate",
        "compare-runs",
        "export",
        "models",
        "predict",
        "features",
    ),
    "cache",
)
"""Commands of `unfreeze`, which are no arguments of train.py."""


class AlreadyCompletedError(Exception):
    """A run that is to be resumed has nothing left to do."""


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments that Hydra understands.

    Paths become absolute and quoted, flags stand first; `resume=<run>` brings back the overrides that the run was
    started with, before the ones typed now, and sends the output into the run's own directory. Doing it twice changes
    nothing.

    Raises:
        UnfreezeError: If there is no run to resume, or an argument is neither a flag nor key=value.
        AlreadyCompletedError: If the run to resume is complete.
    """
    # Flags first, wherever they were typed: argparse takes overrides in one piece only.
    flags, overrides = split_arguments(arguments)
    check_not_empty([each for each in overrides if override_key(each) in ("resume", *_HYDRA_PATH_KEYS)])
    sweeps = _is_multirun(flags, overrides)
    overrides = [_with_quoted_value(override, sweeps=sweeps) for override in overrides]
    resume = next((_unquote(each.partition("=")[2]) for each in overrides if each.startswith("resume=")), None)
    if resume in (None, "null", ""):
        return [*flags, *overrides]
    assert resume is not None
    if any(flag in flags for flag in _MULTIRUN_FLAGS):
        raise UnfreezeError("resume: one run at a time goes on; leave -m out")
    run = RunDirectory(Path(resume))
    saved = run.read_overrides()
    if all(override_key(override) in ("resume", "hydra.run.dir") for override in overrides):
        check_can_go_on(run)  # with other overrides, only their composition shows whether they change anything
    overrides.append(f"hydra.run.dir={quote(resume)}")
    chosen = {override_key(override): override for override in [*saved, *overrides]}
    return [*flags, *chosen.values()]


def check_not_empty(overrides: Sequence[str]) -> None:
    """Refuse an override without a value: most are of a shell variable that is not set.

    Raises:
        UnfreezeError: Naming the key.
    """
    for override in overrides:
        key, separator, value = override.partition("=")
        if separator and not key.startswith("~") and not _unquote(value).strip():
            raise UnfreezeError(f"{key}: the value is empty; type one, as in {key}=..., or leave {key} out")


def override_key(override: str) -> str:
    """Return the key of a Hydra override, without its prefix."""
    return override.partition("=")[0].lstrip("+~")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the flags, each with its value behind it, and the overrides.

    Raises:
        UnfreezeError: If an argument is neither.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, separator, value = argument.partition("=")
        if not argument.startswith("-"):
            if not separator and not argument.startswith("~"):
                raise UnfreezeError(_describe_word(argument, rest))
            overrides.append(argument)
            continue
        if flag not in _FLAGS:
            raise UnfreezeError(_describe_flag(flag, value if separator else next(iter(rest), "...")))
        flags.append(argument)
        if _FLAGS[flag] and not separator:
            flags += rest[:1]
            del rest[:1]
    return flags, overrides


def flag_value(flags: Sequence[str], *names: str) -> str | None:
    """Return the value of a flag, None where it is not among those typed."""
    for flag, following in zip(flags, [*flags[1:], ""], strict=False):
        name, separator, value = flag.partition("=")
        if name in names:
            return value if separator else following
    return None


def check_flags(flags: Sequence[str]) -> None:
    """Refuse values of flags that Hydra would refuse in several lines.

    Raises:
        UnfreezeError: Naming what there is.
    """
    shown, folder = flag_value(flags, "-c", "--cfg"), flag_value(flags, "-cd", "--config-dir")
    if shown is not None and shown not in _CONFIGS:
        raise UnfreezeError(f"--cfg: got {shown!r}, want one of {', '.join(_CONFIGS)}")
    if folder is not None and not Path(folder).is_dir():
        raise UnfreezeError(f"--config-dir: no folder {folder!r}; want one with configs in it")


def _describe_word(word: str, following: Sequence[str]) -> str:
    if word in COMMANDS:
        return f"{word}: a command of unfreeze, not of train.py; type {' '.join(['unfreeze', word, *following])}"
    if RunDirectory(Path(word)).overrides_file.is_file():
        return f"got {word!r}, a run, want key=value; type resume={word} to go on with it"
    return f"got {word!r}, want key=value, such as model=resnet50; python train.py --help lists the keys"


def _describe_flag(flag: str, value: str) -> str:
    near = nearest(flag, list(_FLAGS), limit=1) if flag.startswith("--") else []
    hint = f"{near[0]}, or " if near else ""
    return f"{flag}: there is no such flag; type {hint}{flag.lstrip('-')}={value}"


def check_can_go_on(run: RunDirectory) -> None:
    """Return if a run has something left to do.

    Raises:
        AlreadyCompletedError: If it has not.
    """
    if run.result_file.is_file() and run.read_result()["status"] == "completed":
        raise AlreadyCompletedError(
            f"{run.path} has completed; nothing is left to do. Its figures are in {run.result_file}"
        )


def _is_multirun(flags: Sequence[str], overrides: Sequence[str]) -> bool:
    """Return whether values with commas are those of several jobs."""
    searches = any(override_key(each) == "sweep" and not each.endswith("=null") for each in overrides)
    return searches or "hydra.mode=MULTIRUN" in overrides or any(flag in flags for flag in _MULTIRUN_FLAGS)


def _with_quoted_value(override: str, *, sweeps: bool) -> str:
    """Return an override whose value is quoted where it is a path, or a sign that the grammar has a use for."""
    key, separator, value = override.partition("=")
    name = key.lstrip("+")
    if name in _SIGN_KEYS and separator and value != "null":
        return f"{key}={quote(_unquote(value))}"
    if not separator or (name not in PATH_KEYS and name not in _MAYBE_PATH_KEYS):
        return override
    several = sweeps and name not in _UNSWEPT_KEYS and not os.path.lexists(_expanded(value))
    if several and _SWEPT.fullmatch(value):
        return override
    parts = _PART.findall(value) if several else [value]
    return f"{key}={','.join(_quoted_path(name, part) for part in parts)}"


def _quoted_path(name: str, value: str) -> str:
    """Return one value of a key that takes paths: absolute where it is a path, in quotes where it has to be."""
    plain = _unquote(value)
    if plain in ("", "null", "???") or plain.startswith("${"):
        return value
    is_path = _MAYBE_PATH_KEYS.get(name)
    if is_path is None or is_path(_expanded(value)):
        return quote(os.path.abspath(_expanded(value)))
    return quote(plain) if plain == value else value


def _expanded(value: str) -> str:
    return os.path.expanduser(_unquote(value))


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        # Hydra halves backslashes before a quote or the end, OmegaConf those before an interpolation.
        return re.sub(rf"\\+(?={value[0]}|$|\$\{{)", lambda run: run[0][: len(run[0]) // 2], value[1:-1])
    return value


def quote(value: str) -> str:
    """Return a text as Hydra's grammar wants it, in quotes where it has to be."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = re.sub(r"(\\*)(\$\{|')", r"\1\1\\\2", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"
