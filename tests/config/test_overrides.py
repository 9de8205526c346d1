"""Arguments before Hydra reads them: paths of any spelling, and what resume brings back."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from tests.composing import composed
from unfreeze.config.overrides import (
    _MAYBE_PATH_KEYS,
    _UNSWEPT_KEYS,
    PATH_KEYS,
    AlreadyCompletedError,
    check_not_empty,
    expand_arguments,
    override_key,
)
from unfreeze.errors import UnfreezeError

NASTY = [
    "photos",
    "my photos (1)",
    "lr=0.1,seed=2",
    "a=b",
    "[old] {new}",
    "it's",
    'say "hi"',
    "both ' and \"",
    "'quoted'x",
    "#1 & co; ok?",
    "100%",
    "~old photos",
    "co:lon",
    "comma, here",
    "back\\slash",
    "ends in backslash\\",
    "quote after backslash \\' here",
    "$HOME",
    "${oc.env:HOME}",
    "Łódź 猫",
    "null",
    "true",
    "1e5",
    "*.jpg",
    "-dash",
    "tab\there",
    "a | b ! c ^ @ +",
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def value_that_hydra_reads(argument: str) -> object:
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("name", NASTY)
def test_a_path_of_any_spelling_reaches_the_configuration(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    Path(path).mkdir()
    arguments = expand_arguments([f"data.root={path}", f"hydra.run.dir={path}"])
    config = composed("data=digits", *arguments, with_hydra=True)
    assert config.data.root == path
    assert config.hydra.run.dir == path


@pytest.mark.parametrize("name", [name for name in NASTY if name not in ("null", "${oc.env:HOME}")])
@pytest.mark.parametrize("key", ["data.root", "++data.root", "data.csv", "hydra.sweep.dir"])
def test_a_path_relative_to_here_becomes_absolute(tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / name).mkdir()
    (argument,) = expand_arguments([f"{key}={name}"])
    assert value_that_hydra_reads(argument) == str(tmp_path / name)


@pytest.mark.parametrize("name", ["w=1,x/c", "c ü, a=b/c", "x, (1)/[2]", "it's/a, b", "one,two/c"])
@pytest.mark.parametrize("key", sorted({*PATH_KEYS, *_MAYBE_PATH_KEYS} - {"resume", "model.repo"}))
def test_a_path_that_is_not_there_yet_reaches_hydra_whatever_its_key(tmp_path: Path, key: str, name: str) -> None:
    (argument,) = expand_arguments([f"{key}={name}"])
    assert value_that_hydra_reads(argument) == str(tmp_path / name)
    assert expand_arguments([argument]) == [argument]


@pytest.mark.parametrize("name", ["my weights (1)", "runs of [may]", "a, b"])
@pytest.mark.parametrize("key", sorted(_MAYBE_PATH_KEYS))
def test_a_value_that_may_be_a_path_and_is_none_reaches_hydra_as_it_is(key: str, name: str) -> None:
    (argument,) = expand_arguments([f"{key}={name}"])
    assert value_that_hydra_reads(argument) == name


def test_a_repository_is_a_path_where_it_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "my repo, 2").mkdir()
    (argument,) = expand_arguments(["model.repo=my repo, 2"])
    assert value_that_hydra_reads(argument) == str(tmp_path / "my repo, 2")
    assert expand_arguments(["model.repo=owner/name:v1"]) == ["model.repo=owner/name:v1"]


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="/\x7f"), min_size=1, max_size=12)
)
def test_any_absolute_path_survives_and_doing_it_twice_changes_nothing(name: str) -> None:
    path = f"/data/x{name}"
    once = expand_arguments([f"data.root={path}", "seed=1"])
    assert expand_arguments(once) == once
    if "," not in path:
        assert str(value_that_hydra_reads(once[0])).replace("\\${", "${") == os.path.abspath(path)


def test_a_tilde_is_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home of me"))
    (argument,) = expand_arguments(["data.root=~/photos"])
    assert value_that_hydra_reads(argument) == str(tmp_path / "home of me" / "photos")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_that_a_person_typed_are_not_part_of_the_path(tmp_path: Path, quote: str) -> None:
    (argument,) = expand_arguments([f"data.root={quote}my photos{quote}"])
    assert value_that_hydra_reads(argument) == str(tmp_path / "my photos")


@pytest.mark.parametrize(
    "argument",
    [
        "seed=1",
        "-m",
        "--multirun",
        "--help",
        "--config-dir=mine",
        "model.weights=DEFAULT",
        "model.weights=IMAGENET1K_V2",
        "model.weights=null",
        "data.root=null",
        "data.root=???",
        "data.root=",
        "data.root=${oc.env:PHOTOS}",
        "strategy.stages=[{name: head, train: 1, epochs: 2}]",
        "~callbacks.progress",
        "resume=null",
    ],
)
def test_what_is_no_path_stays_as_it_is(argument: str) -> None:
    assert expand_arguments([argument]) == [argument]


def test_weights_are_a_path_where_there_is_a_slash_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "my weights.pth").touch()
    arguments = expand_arguments(["model.weights=my weights.pth"]) + expand_arguments(["model.weights=w/x=1.pth"])
    assert [value_that_hydra_reads(argument) for argument in arguments] == [
        str(tmp_path / "my weights.pth"),
        str(tmp_path / "w" / "x=1.pth"),
    ]


def test_a_folder_with_a_comma_is_one_path_and_not_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    (argument,) = expand_arguments(["data.root=a,b"])
    assert not OverridesParser.create().parse_override(argument).is_sweep_override()
    assert value_that_hydra_reads(argument) == str(tmp_path / "a,b")


@pytest.mark.parametrize("how", [["-m"], ["sweep=optuna"], ["hydra.mode=MULTIRUN"]])
def test_in_a_multirun_commas_are_between_paths_each_of_any_spelling(tmp_path: Path, how: list[str]) -> None:
    typed = [*how, "data.root=one,my photos (1),'two, three'"]
    swept = next(argument for argument in expand_arguments(typed) if argument.startswith("data.root="))
    override = OverridesParser.create().parse_override(swept)
    assert override.is_sweep_override()
    want = [str(tmp_path / name) for name in ("one", "my photos (1)", "two, three")]
    assert [str(value).strip("'") for value in override.sweep_string_iterator()] == want
    assert expand_arguments(expand_arguments(typed)) == expand_arguments(typed)


@pytest.mark.parametrize("key", [key for key in _UNSWEPT_KEYS if key != "resume"])
def test_a_multirun_has_one_directory_with_whatever_commas(tmp_path: Path, key: str) -> None:
    argument = expand_arguments(["-m", f"{key}=a, b=1"])[-1]
    assert value_that_hydra_reads(argument) == str(tmp_path / "a, b=1")


@pytest.mark.parametrize("argument", ["data.root=choice(one,two)", "model.weights=DEFAULT,null", "model.weights=null"])
def test_what_sweeps_otherwise_stays_as_it_is(argument: str) -> None:
    assert expand_arguments(["-m", argument]) == ["-m", argument]


@pytest.mark.parametrize(("override", "key"), [("a.b=1", "a.b"), ("+a=1", "a"), ("++a.b=c=d", "a.b"), ("~a.b", "a.b")])
def test_the_key_of_an_override(override: str, key: str) -> None:
    assert override_key(override) == key


@pytest.mark.parametrize("argument", ["resume=", "hydra.run.dir=''", "data.root=", "model.name=''", 'cache.dir=""'])
def test_an_empty_value_is_refused(argument: str) -> None:
    key = argument.partition("=")[0]
    told = f"^{re.escape(key)}: the value is empty; type one, as in"
    with pytest.raises(UnfreezeError, match=told):
        check_not_empty(["data=digits", argument])
    if key in ("resume", "hydra.run.dir"):
        with pytest.raises(UnfreezeError, match=told):
            expand_arguments(["data=digits", argument])


def make_run(folder: Path, overrides: Sequence[str], status: str | None = "stopped") -> Path:
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text(json.dumps(list(overrides)))
    if status is not None:
        (folder / "result.json").write_text(json.dumps({"status": status}))
    return folder


class TestResume:
    @pytest.mark.parametrize("status", ["stopped", "failed", None])
    def test_the_overrides_of_the_run_come_back_and_it_goes_on_in_its_place(
        self, tmp_path: Path, status: str | None
    ) -> None:
        run = make_run(tmp_path / "outputs" / "run", ["model=tiny", "data=digits"], status)
        assert expand_arguments(["resume=outputs/run"]) == [
            "model=tiny",
            "data=digits",
            f"resume={run}",
            f"hydra.run.dir={run}",
        ]

    def test_what_is_typed_now_replaces_what_was_typed_then(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", ["model=tiny", "seed=1", "+trainer.max_time=null"])
        expanded = expand_arguments(["seed=2", f"resume={run}", "trainer.max_time=00:01:00:00"])
        assert expanded == [
            "model=tiny",
            "seed=2",
            "trainer.max_time=00:01:00:00",
            f"resume={run}",
            f"hydra.run.dir={run}",
        ]

    @pytest.mark.parametrize("name", ["my run (1)", "lr=0.1", "it's", "[x]", "back\\slash"])
    def test_a_run_may_be_called_anything(self, tmp_path: Path, name: str) -> None:
        run = make_run(tmp_path / name, ["data=digits"])
        expanded = expand_arguments([f"resume={run}"])
        values = {override_key(argument): value_that_hydra_reads(argument) for argument in expanded}
        assert values == {"data": "digits", "resume": str(run), "hydra.run.dir": str(run)}

    def test_doing_it_twice_changes_nothing(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "my run", ["model=tiny", "data.root='/photos (1)'", "+x.y=2"])
        once = expand_arguments([f"resume={run}", "seed=3", "--config-dir=mine"])
        assert expand_arguments(once) == once

    def test_flags_stay_with_their_values(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", ["model=tiny"])
        expanded = expand_arguments(["--config-dir", "mine", f"resume={run}", "-cn", "other", "~callbacks.progress"])
        assert expanded[expanded.index("--config-dir") + 1] == "mine"
        assert expanded[expanded.index("-cn") + 1] == "other"
        assert "~callbacks.progress" in expanded

    def test_an_empty_list_of_overrides_will_do(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", [])
        assert expand_arguments([f"resume={run}"]) == [f"resume={run}", f"hydra.run.dir={run}"]

    def test_a_run_that_has_completed_has_nothing_left_to_do(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", ["model=tiny"], "completed")
        with pytest.raises(AlreadyCompletedError, match="has completed; nothing is left to do") as told:
            expand_arguments([f"resume={run}"])
        assert str(run / "result.json") in str(told.value)

    @pytest.mark.parametrize("name", ["nowhere", "empty"])
    def test_what_is_no_run_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UnfreezeError, match=f"resume: no run in '.*{name}'; want the directory of one"):
            expand_arguments([f"resume={name}"])

    @pytest.mark.parametrize("flag", ["-m", "--multirun"])
    def test_a_multirun_is_not_resumed(self, tmp_path: Path, flag: str) -> None:
        run = make_run(tmp_path / "run", ["model=tiny"])
        with pytest.raises(UnfreezeError, match="one run at a time goes on; leave -m out"):
            expand_arguments([flag, f"resume={run}"])


def test_flags_may_stand_between_overrides() -> None:
    typed = ["model=tiny", "-m", "seed=0,1", "--config-dir", "mine", "trainer=cpu"]
    assert expand_arguments(typed) == ["-m", "--config-dir", "mine", "model=tiny", "seed=0,1", "trainer=cpu"]
