"""`unfreeze plan` and `unfreeze cache`, and the page that `train.py --help` is."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch import ROOT, train, unfreeze
from unfreeze.cache.folder import CacheEntry, CacheFolder, Kind
from unfreeze.config.overrides import COMMANDS


def test_plan_prints_groups_stages_and_rates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    request = ["plan", "model=resnet50", "strategy=partial", "strategy.blocks=2"]
    assert unfreeze(request, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "head        20,490" in out
    assert "total   23,528,522" in out
    assert "head layer4 layer3  22,083,594  10" in out
    assert "0.001 … 1e-05" in out
    assert list(tmp_path.iterdir()) == []


def test_plan_is_what_a_run_keeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request = ["data=digits", "data.fraction=0.02", "model=tiny", "model.weights=null", "trainer.max_epochs=1"]
    done = train([*request, "data.image_size=32", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    assert unfreeze(["plan", *request], monkeypatch) == 0
    assert capsys.readouterr().out == (tmp_path / "run" / "plan.txt").read_text()


@pytest.mark.parametrize(
    ("typed", "cached"),
    [(["strategy=probe"], True), (["strategy=feature_extraction", "strategy.frozen_norm=train"], False)],
)
def test_plan_tells_what_a_run_would_cache(
    typed: list[str], cached: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unfreeze(["plan", "data=digits", "model=resnet18", *typed], monkeypatch) == 0
    out = capsys.readouterr().out
    assert ("avgpool (" in out) == cached
    assert ("cached features: " in out) == (cached and "strategy=probe" not in typed)


def test_plan_refuses_as_train_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert unfreeze(["plan", "data=digits", "strategy.lr.head=0"], monkeypatch) == 2
    assert capsys.readouterr().err == (
        "error: strategy.lr.head: got 0, want greater than 0, such as strategy.lr.head=0.001\n"
    )
    assert unfreeze(["plan", "model=resnet19"], monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: model: no choice 'resnet19'; nearest: resnet18")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["pln"], "unfreeze: No such command 'pln'"),
        (["plan", "--resume", "x"], "--resume: there is no such flag; type --resolve, or resume=x"),
        (["plan", "-m", "seed=0,1"], "-m: a flag of train.py alone; leave it out"),
        (["plan", "--config-dir", "gone"], "--config-dir: no folder 'gone'; want one with configs in it"),
        (["report"], "unfreeze report: Missing argument 'folder'"),
        (["models", "--jsn"], "unfreeze models: No such option: --jsn"),
        (["predict", "run", "a.jpg", "--top-k", "0"], "unfreeze predict: Invalid value for '--top-k': Input should be"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_refused_in_one_line(
    typed: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unfreeze(typed, monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_the_commands_that_train_py_knows_of_are_those_that_there_are() -> None:
    from unfreeze.cli.app import app

    named = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert named | {group.name for group in app.registered_groups} == set(COMMANDS)


def test_help_is_a_page_with_every_choice(tmp_path: Path) -> None:
    done = train(["--help"], tmp_path)
    assert done.code == 0
    for folder in ("data", "model", "strategy", "optimizer", "augment", "trainer", "experiment"):
        for file in (ROOT / "conf" / folder).glob("*.yaml"):
            assert file.stem in done.out, file
    for key in ("data.val_fraction=0.1", "strategy.lr.head=1e-3", "optimizer.schedule=cosine", "resume=null"):
        assert key in done.out
    assert done.out.count("python train.py ") >= 3
    assert max(map(len, done.out.splitlines())) <= 130


KEYS = {"photos": "aa" * 16, "resnet50": "ab" * 16, "unfinished": "c0" * 16}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheFolder:
    """The user's cache folder with three entries, used today, two and forty days ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = CacheFolder(tmp_path / "unfreeze", gb=50)
    fill(folder, "decoded", "photos", {"source": "photos", "images": 6000, "frames": ["32x32-native"]}, days=0)
    fill(folder, "features", "resnet50", {"model": "resnet50", "boundary": "layer4", "dtype": "float32"}, days=2)
    fill(folder, "features", "unfinished", {}, days=40)
    return folder


def fill(cache: CacheFolder, kind: Kind, name: str, meta: dict[str, object], *, days: float) -> CacheEntry:
    entry = cache.entry(kind, KEYS[name])
    with entry.locked():
        (entry.folder / "x.npy").write_bytes(bytes(10**6))
        if meta:
            entry.describe(meta)
    for file in entry.folder.iterdir():
        os.utime(file, (time.time() - days * 86400 - 60,) * 2)
    return entry


def kept(cache: CacheFolder) -> set[str]:
    return {name for item in cache.entries() for name, key in KEYS.items() if key == item.key}


def test_cache_lists_what_is_kept(
    cache: CacheFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = cache.entry("features", KEYS["resnet50"])
    used.use()
    assert unfreeze(["cache"], monkeypatch) == 0
    out = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert ["decoded", "aaaaaaaa", "photos · 6,000 images · 32x32-native", "1.0 MB", "1 minute ago"] in rows
    assert ["features", "abababab", "resnet50 · layer4 · float32", "1.0 MB", "2 days ago", "in use"] in rows
    assert ["features", "c0c0c0c0", "no description", "1.0 MB", "40 days ago"] in rows
    assert rows[-1] == [f"3 entries, 3.0 MB of cache.gb=50, in {cache.root}"]
    assert unfreeze(["cache", "list"], monkeypatch) == 0
    assert capsys.readouterr().out == out
    used.release()


def test_cache_lists_as_json(
    cache: CacheFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unfreeze(["cache", "--json"], monkeypatch) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["folder"], listed["cap_bytes"]) == (str(cache.root), 50 * 10**9)
    assert listed["bytes"] == sum(entry["bytes"] for entry in listed["entries"]) > 3 * 10**6
    last = listed["entries"][-1]
    assert (last["kind"], last["key"], last["in_use"], last["meta"]["images"]) == (
        "decoded",
        KEYS["photos"],
        False,
        6000,
    )
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", last["last_used"])


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["aa"], {"resnet50", "unfinished"}),
        (["AAAA", "c0c0"], {"resnet50"}),
        (["a"], {"unfinished"}),
        (["--kind", "features"], {"photos"}),
        (["--older-than", "30"], {"photos", "resnet50"}),
        (["--older-than", "0"], set()),
        (["a", "--older-than", "1"], {"photos", "unfinished"}),
        (["--kind", "decoded", "--older-than", "1"], {"photos", "resnet50", "unfinished"}),
        (["--all"], set()),
    ],
)
def test_cache_clear_removes_what_all_words_select(
    cache: CacheFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    left: set[str],
) -> None:
    assert unfreeze(["cache", "clear", *words], monkeypatch) == 0
    assert kept(cache) == left
    out, gone = capsys.readouterr().out, 3 - len(left)
    assert out.count("  removed: ") == gone
    entries = "entry" if gone == 1 else "entries"
    last = f"  {gone} {entries} removed, {gone}.0 MB\n" if gone else "  no entry matches; nothing was removed\n"
    assert out.endswith(last)


def test_cache_clear_leaves_what_is_in_use(
    cache: CacheFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = cache.entry("decoded", KEYS["photos"])
    used.use()
    assert unfreeze(["cache", "clear", "--all"], monkeypatch) == 0
    assert kept(cache) == {"photos"}
    out = capsys.readouterr().out
    assert "  not removed, in use: decoded aaaaaaaa  photos · 6,000 images · 32x32-native, 1.0 MB\n" in out
    assert out.endswith("  2 entries removed, 2.0 MB; 1 entry in use\n")
    used.release()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "nothing was selected; type a KEY as `unfreeze cache` lists it, --kind decoded|features, "
            "--older-than DAYS, or --all",
        ),
        (["--all", "--kind", "decoded"], "--all selects everything; leave it out, or leave out the other conditions"),
        (["--kind", "logits"], "--kind: got 'logits', want one of decoded, features"),
        (["aa", "ff"], "no key begins with 'ff'; keys: c0c0c0c0, abababab, aaaaaaaa"),
        ([""], "no key begins with ''; keys: c0c0c0c0, abababab, aaaaaaaa"),
    ],
)
def test_cache_clear_refuses_in_one_line(
    cache: CacheFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert unfreeze(["cache", "clear", *words], monkeypatch) == 2
    assert capsys.readouterr().err == f"error: cache clear: {message}\n"
    assert len(kept(cache)) == 3


def test_cache_of_another_folder(
    cache: CacheFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = CacheFolder(tmp_path / "other", gb=1)
    fill(other, "decoded", "photos", {"source": "others"}, days=0)
    assert unfreeze(["cache", "--dir", str(other.root)], monkeypatch) == 0
    assert "others" in capsys.readouterr().out
    assert unfreeze(["cache", "--dir", str(other.root), "clear", "--all"], monkeypatch) == 0
    fill(other, "decoded", "photos", {}, days=0)
    assert unfreeze(["cache", "clear", "--all", "--dir", str(other.root)], monkeypatch) == 0
    assert (kept(other), len(kept(cache))) == (set(), 3)
    capsys.readouterr()
    assert unfreeze(["cache", "--dir", str(other.root)], monkeypatch) == 0
    assert capsys.readouterr().out == f"  nothing is cached in {other.root}\n"
    assert unfreeze(["cache", "--dir", str(tmp_path / "no")], monkeypatch) == 2
    assert f"--dir: there is no folder '{tmp_path / 'no'}'; type the cache.dir" in capsys.readouterr().err


def test_cache_needs_neither_torch_nor_numpy(cache: CacheFolder) -> None:
    check = (
        "import sys; from unfreeze.cli.app import app; app(['cache'], standalone_mode=False)\n"
        "print({'torch', 'numpy', 'hydra'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_importing_the_package_does_not_import_torch() -> None:
    check = "import sys, unfreeze, unfreeze.cli.app; print('torch' in sys.modules, hasattr(unfreeze, 'Plan'))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
