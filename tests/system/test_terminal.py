"""Output in other encodings than UTF-8, and to closed pipes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import TINY_RUN, train
from unfreeze.system.terminal import ASCII_FORMS, open_output

QUICK = [*TINY_RUN, "model.weights=null", "data.fraction=0.05", "trainer.max_epochs=1", "hydra.run.dir=run"]
UNFREEZE = [sys.executable, "-c", "from unfreeze.cli.app import main; main()"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.001 … 1e-05 · val/acc ↑", "0.001 - 1e-05 - val/acc ^"),
        ("→ block: Füße", "> block: Fu\\xdfe"),
        ("猫 \udcff", "\\u732b \\udcff"),
        ("plain", "plain"),
    ],
)
def test_what_an_encoding_lacks_is_shown_in_ascii(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    open_output()
    sys.stdout.write(text)
    assert written.getvalue().decode("ascii") == shown


def test_the_signs_of_tables_keep_their_width() -> None:
    assert {"…", "·", "→", "↑"} <= ASCII_FORMS.keys()
    assert {len(form) for form in ASCII_FORMS.values()} == {1}


def test_a_run_writes_ascii_where_it_has_to(tmp_path: Path) -> None:
    done = train(QUICK, tmp_path, encoding="ascii")
    assert (done.code, done.err) == (0, "")
    assert "1 x cpu - 32-true" in done.out
    assert (tmp_path / "run" / "train.log").read_text(encoding="utf-8").count("1 x cpu · 32-true") == 1


def test_a_run_goes_on_after_a_broken_pipe(tmp_path: Path) -> None:
    done = train(QUICK, tmp_path, is_read=False)
    assert (done.code, done.err) == (0, "")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("typed", [["models"], ["models", "--json"], ["cache"], ["--help"], ["plan", "--help"]])
def test_a_command_ends_without_a_traceback_after_a_broken_pipe(typed: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*UNFREEZE, *typed], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


@pytest.mark.parametrize("typed", [["models", "resnet"], ["cache"]])
def test_a_command_writes_ascii_where_it_has_to(typed: list[str]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*UNFREEZE, *typed], capture_output=True, env=environment, check=True)
    assert done.stdout.isascii()
    assert done.stderr == b""


def test_help_ends_without_a_traceback_after_a_broken_pipe(tmp_path: Path) -> None:
    done = train(["--help"], tmp_path, is_read=False)
    assert (done.code, done.err) == (0, "")
