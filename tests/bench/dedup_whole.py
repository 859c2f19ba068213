"""What `dedup.py` measures from outside: a lake that grows, the command from file to file, how long it takes to start."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from flows.recipe import load_recipe
from pipeline.build import Stage, build
from storage.lake import Lake

ONE_CORE = dict.fromkeys(
    ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
) | {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
"""Environment of every program that is measured."""
RECIPE = """
name = "bench"
quality = {{ enabled = false }}
language = {{ detect = false }}
toxicity = {{ enabled = false }}
pii = {{ enabled = false }}
gates = {{ enabled = false }}
tokenizer = {{ vocab_size = 1024 }}

[[sources]]
path = "{folder}/*.jsonl"
domain = "bench"
"""


def increment(table: pa.Table) -> None:
    """Build 99 % of a corpus in a lake, add 1 %, and build it all at once in another."""
    rows = len(table)
    parts = {"most": (0, rows * 99 // 100), "rest": (rows * 99 // 100, rows)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, (begin, end) in parts.items():
            _write_jsonl(folder / "all" / f"{part}.jsonl", table.slice(begin, end - begin))
        (folder / "some").mkdir()
        os.link(folder / "all/most.jsonl", folder / "some/most.jsonl")
        took = {"99 %": _build(folder, "some")}
        os.link(folder / "all/rest.jsonl", folder / "some/rest.jsonl")
        took["1 % more"] = _build(folder, "some")
        took["all at once"] = _build(folder, "all")
    whole = took["all at once"]
    print(f"\ngristmill build, {rows:,} documents in a lake, one worker (CPU seconds)")
    for label, stages in took.items():
        shown = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
        dedup, of_all = (
            sum(found[stage] for stage in ("sign", "near_duplicates")) for found in (stages, whole)
        )
        print(f"  {label:12} {sum(stages.values()):7.2f}  ({shown})")
        if label == "1 % more":
            print(
                f"  {'':12} {100 * sum(stages.values()) / sum(whole.values()):.1f} % of a full build; "
                f"signing and near-duplicates {100 * dedup / of_all:.1f} %"
            )


def _write_jsonl(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf8") as file:
        for text in table["text"].to_pylist():
            file.write(json.dumps({"text": text}) + "\n")


def _build(folder: Path, name: str) -> dict[str, float]:
    """CPU seconds of each stage of a build in the lake of that name, and of the rest (finding inputs, the commit)."""
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(folder=name))
    took: dict[str, float] = {}

    def timed(stage: Stage, run: Callable[[], dict[str, int]]) -> dict[str, int]:
        begun = time.process_time()
        counts = run()
        took[stage.name] = time.process_time() - begun
        return counts

    begun = time.process_time()
    lake = Lake.open(str(folder / f"{name}-lake"))
    build(load_recipe(str(recipe)).build, lake, root=folder, run_stage=timed)
    return took | {"rest": time.process_time() - begun - sum(took.values())}


def command(corpus: Path) -> None:
    """`gristmill dedup` from an Arrow file to another, with the list of pairs."""
    with tempfile.TemporaryDirectory() as name:
        outputs = ("-o", f"{name}/kept.arrow", "--pairs", f"{name}/pairs.parquet")
        arguments = ["dedup", str(corpus), *outputs, "--workers", "1", "--json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        done = _run([sys.executable, "-m", "flows.cli", *arguments], {})
        wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = corpus.stat().st_size / 1e6
    print(
        f"\ngristmill dedup, file to file: {wall:.2f} s, {cpu:.2f} CPU-s, {size / cpu:.0f} MB/CPU-s"
    )
    print(f"  {json.dumps(json.loads(done))[:300]}")


def start_up(corpus: Path) -> None:
    """Seconds until the engine has done 200 documents: nothing compiled yet, and compiled before."""
    code = """
import sys, time
begun = time.perf_counter()
import pyarrow as pa
from dedup_tools import gristmill_verified
table = pa.ipc.open_file(pa.memory_map(sys.argv[1])).get_batch(0).slice(0, 200)
gristmill_verified(pa.Table.from_batches([table]).select(["id", "text"]), 25, 5)
print(time.perf_counter() - begun)
"""
    with tempfile.TemporaryDirectory() as cache:
        environment = {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": _path()}
        took = [
            float(_run([sys.executable, "-c", code, str(corpus)], environment)) for _ in range(3)
        ]
    print(f"first start, with compiling {took[0]:.1f} s; later ones {min(took[1:]):.2f} s")


def _path() -> str:
    """Where the programs find these scripts, and what this one has been told."""
    told = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(Path(__file__).parent), *([told] if told else [])])


def _run(arguments: list[str], environment: dict[str, str]) -> str:
    """What a program printed."""
    done = subprocess.run(
        arguments, env=os.environ | ONE_CORE | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout
