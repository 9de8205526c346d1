"""The code in docs/ runs as it stands; what the README says of commands and files is so."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.launch import ROOT, train
from tests.test_refusals import write_images
from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import load_classifier


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


def test_the_plain_module_of_own_backbone_is_trained_in_stages(tmp_path: Path) -> None:
    block = re.search(
        r"```python\n# nets/hubconf.py\n(.*?)```", (ROOT / "docs" / "own-backbone.md").read_text(), re.DOTALL
    )
    assert block is not None
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "hubconf.py").write_text(block[1])
    model = ["model=hub", "model.repo=nets", "model.name=small", "model.weights=null"]
    data = ["data=digits", "data.fraction=0.1", "data.image_size=32"]
    stages = "strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 2}]"
    done = train([*model, *data, stages, "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    assert "stem" in (tmp_path / "run" / "plan.txt").read_text()
    with pytest.raises(UnfreezeError, match=r"whose code would run; if you trust it, .* in a script trust_repo=True"):
        load_classifier(tmp_path / "run")
    assert [group.name for group in load_classifier(tmp_path / "run", trust_repo=True).groups] == [
        "head",
        "body",
        "stem",
    ]


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
    assert len(text.splitlines()) <= 180
    for name in re.findall(r"`(src/unfreeze/[\w/.]+|conf/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def test_every_path_of_the_code_map_exists() -> None:
    text = (ROOT / "README.md").read_text().split("## Code map")[1]
    paths = re.findall(r"`([\w/]+(?:/|\.py))`", text)
    assert len(paths) > 40
    for name in paths:
        assert (ROOT / name).exists() or (ROOT / "src/unfreeze" / name).exists(), name
