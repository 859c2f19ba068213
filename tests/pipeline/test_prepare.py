"""What is compiled before a build is what the build calls."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import prepare
from pipeline.dedup import DedupConfig
from pipeline.executor import Executor
from pipeline.prepare import compile_loops, loops_of

ROOT = Path(__file__).parents[2]

BUILD = """
import sys
from flows.recipe import load_recipe, find_recipe
from pipeline import kernels, prepare
from pipeline.build import build
from pipeline.executor import Executor
from storage.lake import Lake

config = load_recipe("quickstart", sys.argv[2:]).build
build(config, Lake.open(sys.argv[1]), root=find_recipe("quickstart").parent, executor=Executor(workers=1))
called = {name for name in kernels.ALL if "_compiled" in vars(getattr(kernels, name))}
print(*sorted(called - set(prepare.loops_of(config.dedup))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("override", ["hash='mix'", "hash='sha1'", "template_share=0.05"])
def test_a_build_calls_no_other_loops(tmp_path: Path, override: str) -> None:
    """One that is not listed would be compiled by a worker in silence, while the others wait."""
    program = [sys.executable, "-c", BUILD, str(tmp_path / "lake"), f"dedup.{override}"]
    assert subprocess.check_output(program, cwd=ROOT, text=True).strip() == ""


def test_only_what_is_missing_is_compiled_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all is kept there is no word; else a bar over what is not."""
    told: list[tuple[object, ...]] = []
    config = DedupConfig()
    compile_loops(config, Executor(), lambda *what: None)
    compile_loops(config, Executor(), lambda *what: told.append(what))
    assert told == []
    monkeypatch.setattr(prepare, "_is_kept", lambda name: name not in ("find_roots", "squeeze"))
    compile_loops(config, Executor(), lambda *what: told.append(what))
    assert told == [("compiling, once", done, 2, "loops") for done in range(3)]


def test_a_deduplication_alone_needs_no_filters() -> None:
    """Every loop once, and what measures texts only for builds."""
    for config in (DedupConfig(), DedupConfig(hash="sha1", template_share=0.1)):
        names = loops_of(config)
        assert len(set(names)) == len(names)
        assert {*names} - {*loops_of(config, filters=False)} == {"measure_texts"}
