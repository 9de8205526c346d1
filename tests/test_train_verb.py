"""`unfreeze train` is train.py: the same runs, the same help, the same refusals, and it starts ranks."""

import json
import subprocess
import sys
from pathlib import Path

from tests.launch import ROOT, TINY_RUN, train

VERB = [str(Path(sys.executable).with_name("unfreeze")), "train"]
STAGES = "strategy.stages=[{name: head, train: 1, epochs: 1}]"


def run_verb(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*VERB, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


def test_it_leaves_what_train_py_leaves(tmp_path: Path) -> None:
    typed = [*TINY_RUN, STAGES, "logger=none", "report=false", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    for name in ("verb", "script"):
        (tmp_path / name).mkdir()
    done = run_verb(typed, tmp_path / "verb")
    assert done.returncode == 0, done.stderr
    assert train(typed, tmp_path / "script").code == 0
    verb, script = (json.loads((tmp_path / name / "run" / "result.json").read_text()) for name in ("verb", "script"))
    assert verb["test"] == script["test"]
    assert verb["overrides"] == script["overrides"]
    again, other = run_verb(["resume=run"], tmp_path / "verb"), train(["resume=run"], tmp_path / "script")
    assert (again.returncode, other.code) == (0, 0)
    assert again.stdout.replace("/verb/", "/script/") == other.out


def test_help_and_refusals_are_those_of_train_py(tmp_path: Path) -> None:
    script = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run_verb(["--help"], tmp_path).stdout == script.stdout
    refused = run_verb(["data=digit"], tmp_path)
    assert (refused.returncode, refused.stderr) == (2, train(["data=digit"], tmp_path).err)
