"""Which package may import which, read from the imports themselves, those inside functions too."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unfreeze

PACKAGE = Path(unfreeze.__file__).parent
OLD_RUNS = Path(__file__).parent / "assets" / "old_runs"
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

LAYERS: dict[str, set[str]] = {
    "errors.py": set(),
    "system": {"errors"},
    "assets": set(),
    "cache": {"errors", "system"},
    "results": {"errors", "system"},
    "models": {"errors", "system", "cache", "results", "assets"},
    "data": {"errors", "system", "cache", "results"},
    "training": {"errors", "system", "cache", "results", "models", "data"},
    "evaluation": {"errors", "system", "cache", "results", "models", "data"},
    "inference": {"errors", "system", "cache", "results", "models", "data"},
    "config": {"errors", "system", "results", "assets"},
    "runs": {
        *("errors", "system", "cache", "results", "models", "data", "training", "evaluation", "inference", "config"),
    },
    "sweeps": {"errors", "system", "results"},
    "cli": {
        *("errors", "system", "cache", "results", "models", "data", "training", "evaluation", "inference", "config"),
        *("runs", "sweeps"),
    },
}
"""The packages that each package may import beside itself."""

PURE_VALUES = {
    *("models.catalog", "models.spec", "models.outline", "models.weight_names", "models.model_argument"),
    *("training.plan.plan", "training.plan.resolve", "training.plan.schedules", "training.plan.text"),
    *("training.plan.limits", "data.augment.presets", "data.sources.registry"),
}
"""Modules without torch, Lightning and Hydra; `config` may import those that it needs to check values."""

HEAVY = {"torch", "torchvision", "lightning", "torchmetrics", "hydra", "omegaconf", "sklearn", "matplotlib"}
LIGHTNING_FREE = ("system", "cache", "results", "models", "data", "evaluation", "inference", "config", "assets")
HYDRA = {"config/compose.py", "config/composition_messages.py", "cli/script.py", "cli/hooks.py"}
DATA_MODULE = Path("data/datamodule.py")


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
        else:
            yield from imports_of(child)


def imported_by(file: Path) -> set[str]:
    return set(imports_of(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))))


def own_imports(file: Path) -> set[str]:
    """Return the modules of this project that a file imports, without the project's name."""
    return {module.removeprefix("unfreeze.") for module in imported_by(file) if module.startswith("unfreeze.")}


def test_the_root_has_two_modules() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "errors.py"]


def test_every_package_has_a_line() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert packages == set(LAYERS) - {"errors.py"}


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "__init__.py"], ids=str)
def test_a_file_imports_only_what_its_package_may(file: Path) -> None:
    package = file.parts[0]
    allowed = LAYERS[package] | {package}
    found = {module for module in own_imports(file) if module.partition(".")[0] not in allowed}
    assert found - (PURE_VALUES if package == "config" else set()) == set()


@pytest.mark.parametrize("file", FILES, ids=str)
def test_lightning_and_hydra_stay_where_they_belong(file: Path) -> None:
    tops = {module.partition(".")[0] for module in imported_by(file)}
    assert "lightning" not in tops or file == DATA_MODULE or file.parts[0] not in LIGHTNING_FREE
    assert not {"hydra", "hydra_plugins"} & tops or file.as_posix() in HYDRA


def test_packages_do_not_import_each_other() -> None:
    """Follow the arrows between packages; those to pure values do not count."""
    arrows: dict[str, set[str]] = {}
    for file in FILES:
        own = file.parts[0].removesuffix(".py")
        others = {module.partition(".")[0] for module in own_imports(file) - PURE_VALUES}
        arrows.setdefault(own, set()).update(others - {own})
    order: list[str] = []
    while arrows:
        leaves = sorted(name for name, others in arrows.items() if not others - set(order) - {"__version__"})
        assert leaves, f"a cycle among {sorted(arrows)}"
        order += leaves
        for name in leaves:
            del arrows[name]


@pytest.mark.parametrize("module", sorted(PURE_VALUES))
def test_pure_values_import_no_heavy_library(module: str) -> None:
    file = Path(f"{module.replace('.', '/')}.py")
    assert {name.partition(".")[0] for name in imported_by(file)} & HEAVY == set()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("unfreeze", HEAVY | {"numpy", "yaml", "pydantic"}),
        ("unfreeze.cli.app", HEAVY | {"numpy", "pydantic", "polars"}),
        ("unfreeze.runs.estimate", HEAVY | {"polars"}),
        ("unfreeze.runs.builders.plan", HEAVY | {"polars"}),
    ],
)
def test_importing_these_stays_cheap(module: str, heavy: set[str]) -> None:
    program = f"import sys, {module}\nprint(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_few_functions_import_this_project() -> None:
    """Only to save start-up time."""
    statements = [
        f"{file}: {node.module}"
        for file in FILES
        for function in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unfreeze")
    ]
    assert len(statements) <= 60, statements


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "completed"],
        ["features", "completed", "--out=features.npz"],
        ["export", "completed", "--to=safetensors"],
        ["evaluate", "completed", "--split=val", "--out=completed"],
        ["soup", "completed"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_lightning_is_not_imported_without_a_trainer(arguments: list[str], tmp_path: Path) -> None:
    """The last two run a Trainer once there is nothing left to refuse."""
    shutil.copytree(OLD_RUNS / "completed", tmp_path / "completed")
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('lightning' in sys.modules))\n"
        f"sys.argv = {['unfreeze', *arguments]!r}\n"
        "from unfreeze.cli.app import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if arguments[0] in ("evaluate", "soup") else 0), done.stderr
    assert done.stdout.endswith("False\n")


def test_what_benchmarks_and_tools_import_exists() -> None:
    """The types of those that run in the environment of other tools are not checked."""
    root = Path(__file__).parents[1]
    for file in [*(root / "benchmarks").rglob("*.py"), *(root / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "unfreeze":
                module = importlib.import_module(str(node.module))
                missing = [
                    each.name
                    for each in node.names
                    if not hasattr(module, each.name) and importlib.util.find_spec(f"{node.module}.{each.name}") is None
                ]
                assert not missing, f"{file.relative_to(root)}:{node.lineno}: {node.module} has no {missing}"
