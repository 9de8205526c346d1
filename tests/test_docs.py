"""The code in docs/ runs as it stands; what the README says of commands and files is so."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.launch import ROOT
from tests.test_refusals import write_images


def test_the_script_in_own_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate(("a", "b")):
        write_images(tmp_path / "photos" / name, 12, seed)
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own-script.md").read_text(), re.DOTALL)
    assert block is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block[1], "own-script.md", "exec"), {})
    assert re.search(r"[01]\.\d{3} right on 2 images", printed.getvalue())


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_make_help_lists_every_target() -> None:
    import subprocess

    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^  make {target}\s+\S", listed, re.MULTILINE), target


def test_the_readme_is_short_and_names_only_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 250
    for name in re.findall(r"`(src/unfreeze/[\w/.]+|conf/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
