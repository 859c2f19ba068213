"""The arrows between packages, what an import may load, and that the README tells the truth about the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage", "pipeline", "model", "flows")

FORBIDDEN = {
    "storage": {"pipeline", "model", "flows", "torch", "prefect"},
    "pipeline": {"model", "flows", "torch", "prefect"},
    "model": {"pipeline", "flows", "prefect"},
    "flows": set(),
}
"""What a package must not import, at the top of a file or later."""


def imported_by(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in memory after a statement ran in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_goes_against_the_arrows(package: str) -> None:
    """storage <- pipeline, model <- flows; torch stays in model, prefect in flows."""
    for path in sorted((ROOT / package).rglob("*.py")):
        assert not imported_by(path) & FORBIDDEN[package], path.relative_to(ROOT)


def test_nothing_imports_the_whole_model_package() -> None:
    """`model` is a name every caller needs for a variable, so only its modules are imported by name."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf8"))):
                if isinstance(node, ast.Import):
                    assert "model" not in {alias.name for alias in node.names}, path
                if isinstance(node, ast.ImportFrom):
                    assert "*" not in {alias.name for alias in node.names}, path


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pipeline.build", {"torch", "prefect", "datasets", "matplotlib", "numba"}),
        ("import storage.catalog", {"torch", "prefect", "datasets", "sentencepiece"}),
        ("import model.train", {"prefect", "pipeline", "datasets"}),
        (
            "import flows.cli",
            {"torch", "prefect", "pyarrow", "datasets", "numpy", "pydantic", "numba"},
        ),
    ],
)
def test_imports_stay_light(statement: str, absent: set[str]) -> None:
    """What a command does not need is not loaded: a build must not wait for torch, help for nothing."""
    assert not loaded_by(statement) & absent


def readme() -> str:
    return (ROOT / "README.md").read_text("utf8")


def test_readme_tree_exists() -> None:
    """Every file and folder that the README's tree names is there, and every package module is named."""
    block = re.search(r"```tree\n(.*?)```", readme(), re.DOTALL)
    assert block, "README.md has no ```tree block"
    named = set()
    for line in block[1].splitlines():
        folder, _, rest = line.partition("/ ")
        for name in re.findall(r"[\w.]+\.(?:py|jinja)", rest.split("  #")[0]):
            assert (ROOT / folder / name).is_file(), f"{folder}/{name}"
            named.add(f"{folder}/{name}")
    modules = {
        path.relative_to(ROOT).as_posix()
        for folder in (*PACKAGES, "pipeline/kernels")
        for path in (ROOT / folder).glob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= named, sorted(modules - named)


def test_readme_hops_exist() -> None:
    """Every `file.py:function` hop from raw file to gradient is a function or class of that file."""
    hops = re.findall(r"`((?:storage|pipeline|model|flows)/[\w/]+\.py):(\w+)`", readme())
    assert len(hops) >= 10
    for file, name in hops:
        tree = ast.parse((ROOT / file).read_text("utf8"))
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        }
        assert name in defined, f"{file}:{name}"
