"""Which part may know which: read from the imports themselves, those inside functions too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unfreeze

PACKAGE = Path(unfreeze.__file__).parent
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MAY_IMPORT_HYDRA = {"run.py", "entry.py", "composing.py", "composition_errors.py"}
OUTER = {
    f"unfreeze.{name}"
    for name in (
        "run",
        "experiment",
        "compute",
        "entry",
        "cli",
        "commands",
        "composing",
        "composition_errors",
        "sweep",
        "config",
        "arguments",
        "resolvers",
    )
}
FORBIDDEN = {
    "models": {"unfreeze.data", "unfreeze.training", "unfreeze.evaluation", "unfreeze.inference", "lightning", *OUTER},
    "data": {"unfreeze.models", "unfreeze.training", "unfreeze.evaluation", "unfreeze.inference", "lightning", *OUTER},
    "training": OUTER,
    "evaluation": OUTER,
    "inference": {"unfreeze.training", *OUTER},
    "assets": OUTER,
}
LIGHTNING_DATA_MODULE = Path("data/datamodule.py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(node: ast.AST) -> Iterator[str]:
    """Yield the modules that a file imports when it runs, wherever in it."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield str(child.module)
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports_of(child)


def imported_by(file: Path) -> set[str]:
    return set(imports_of(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))))


def belongs_to(module: str, forbidden: str) -> bool:
    return module == forbidden or module.startswith(f"{forbidden}.")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_nothing_that_its_part_must_not_know(file: Path) -> None:
    forbidden = set(FORBIDDEN.get(file.parts[0], set()))
    if file == LIGHTNING_DATA_MODULE:
        forbidden -= {"lightning"}
    assert {module for module in imported_by(file) if any(belongs_to(module, name) for name in forbidden)} == set()


@pytest.mark.parametrize("file", FILES, ids=str)
def test_hydra_is_imported_only_where_it_composes(file: Path) -> None:
    hydra = {
        module for module in imported_by(file) if belongs_to(module, "hydra") or belongs_to(module, "hydra_plugins")
    }
    assert not hydra or file.as_posix() in MAY_IMPORT_HYDRA


@pytest.mark.parametrize(
    "file",
    [
        *(
            "training/plan.py",
            "training/schedules.py",
            "training/monitors.py",
            "config.py",
            "cachefolder.py",
            "marks.py",
        ),
        *(
            "models/spec.py",
            "models/catalog.py",
            "models/outline.py",
            "models/weight_names.py",
            "terminal.py",
            "text.py",
        ),
        *("data/augment/presets.py", "inference/meant.py", "rundir.py", "arguments.py", "ingredients.py"),
    ],
)
def test_what_is_pure_needs_neither_torch_nor_lightning(file: str) -> None:
    heavy = {"torch", "torchvision", "lightning", "torchmetrics", "hydra", "omegaconf"}
    assert {module for module in imported_by(Path(file)) if module.partition(".")[0] in heavy} == set()


def test_the_data_module_takes_from_lightning_only_its_base() -> None:
    tree = ast.parse((PACKAGE / LIGHTNING_DATA_MODULE).read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "L"
    }
    assert {module for module in imported_by(LIGHTNING_DATA_MODULE) if belongs_to(module, "lightning")} == {"lightning"}
    assert used == {"LightningDataModule"}
