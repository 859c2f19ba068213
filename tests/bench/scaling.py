"""Does the work grow in proportion to its input? Times stages and commands at n, 2n and 4n of what there can be many of.

    python tests/bench/scaling.py                   # every dimension, some minutes
    python tests/bench/scaling.py files snapshots   # some of them
    python tests/bench/scaling.py files --n 50000   # at another n

Seconds of CPU time of this process, which works alone, so that other work on the machine says little. Each line is a
stage or a command, with its seconds at n, 2n and 4n, and what the second doubling added over what the first one did:
2 for linear work, 4 for quadratic. Work of less than 0.2 s has no ratio.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.document_search import find_documents
from pipeline.build import BuildConfig, build
from pipeline.forget import forget, make_plan
from pipeline.readers import SourceConfig
from pipeline.selection import Request, select
from pipeline.tokenizer import TokenizerConfig
from storage.catalog import gc, resolve, verify
from storage.lake import Lake

WORDS = [
    f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "ra", "lo", "st", "mi")
]


def text(number: int, words: int = 30) -> str:
    """A text of its own for each number."""
    generator = random.Random(number)
    return f"Text {number} of many: " + " ".join(generator.choices(WORDS, k=words)) + ".\n"


@dataclass
class Clock:
    """Seconds of what was done, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def times(self, name: str):
        begin = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin

    def run_stage(self, stage, run):
        """Run a stage of a build under the clock."""
        with self.times(stage.name):
            return run()


def config(*sources: SourceConfig) -> BuildConfig:
    return BuildConfig(name="scaling", sources=sources, tokenizer=TokenizerConfig(vocab_size=400))


def write_files(folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / f"{number // 1000:04}" / f"{number:07}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(number), "utf8")


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")


def build_once(clock: Clock, folder: Path, sources: list[SourceConfig]) -> Lake:
    """Build, build again with nothing new, and ask what people ask."""
    lake, recipe = Lake.open(folder / "lake"), config(*sources)
    with clock.times("build"):
        build(recipe, lake, root=folder, run_stage=clock.run_stage)
    with clock.times("build, nothing new"):
        build(recipe, lake, root=folder)
    ask(clock, lake)
    return lake


def ask(clock: Clock, lake: Lake) -> None:
    with clock.times("resolve"):
        snapshot = resolve(lake, "scaling")
    with clock.times("find a document"):
        find_documents(snapshot, "a.jsonl:1")
    with clock.times("verify"):
        assert verify(lake) == []
    with clock.times("gc"):
        gc(lake, dry_run=True)


def files(clock: Clock, folder: Path, n: int) -> None:
    write_files(folder / "t", range(n))
    build_once(clock, folder, [SourceConfig(path="t", domain="books")])
    write_files(folder / "t", range(n, n + n // 100))
    with clock.times("build, 1 % new"):
        build(
            config(SourceConfig(path="t", domain="books")), Lake.open(folder / "lake"), root=folder
        )


def documents(clock: Clock, folder: Path, n: int) -> None:
    write_rows(folder / "a.jsonl", [{"text": text(number)} for number in range(n)])
    build_once(clock, folder, [SourceConfig(path="a.jsonl", domain="books")])


def copies(clock: Clock, folder: Path, n: int) -> None:
    """A third are near-duplicates of one another, one cluster; a gate would refuse a corpus of nothing else."""
    common = text(0, 200)
    rows = [{"text": f"{common} {text(number, 2)}"} for number in range(n)]
    rows += [{"text": text(number)} for number in range(n, 3 * n)]
    write_rows(folder / "a.jsonl", rows)
    build_once(clock, folder, [SourceConfig(path="a.jsonl", domain="books")])


def sources(clock: Clock, folder: Path, n: int) -> None:
    write_files(folder / "t", range(n))
    found = sorted((folder / "t").rglob("*.txt"))
    paths = [str(path.relative_to(folder)) for path in found]
    build_once(clock, folder, [SourceConfig(path=path, domain="books") for path in paths])


def domains(clock: Clock, folder: Path, n: int) -> None:
    rows = [{"text": text(number), "kind": f"d{number % n}"} for number in range(4 * n)]
    write_rows(folder / "a.jsonl", rows)
    build_once(clock, folder, [SourceConfig(path="a.jsonl", domain="books", domain_field="kind")])


def snapshots(clock: Clock, folder: Path, n: int) -> None:
    """Each build adds a few documents; the last ones and the questions after them are timed."""
    lake, recipe = Lake.open(folder / "lake"), config(SourceConfig(path="t", domain="books"))
    for number in range(n):
        write_files(folder / "t", range(4 * number, 4 * number + 4))
        if number < n - 3:
            build(recipe, lake, root=folder)
            continue
        with clock.times("the last three builds"):
            build(recipe, lake, root=folder, run_stage=clock.run_stage)
    ask(clock, lake)


def forgotten(clock: Clock, folder: Path, n: int) -> None:
    """Requests to forget one document each, in a row."""
    write_rows(folder / "a.jsonl", [{"text": text(number)} for number in range(2000)])
    lake = Lake.open(folder / "lake")
    build(config(SourceConfig(path="a.jsonl", domain="books")), lake, root=folder)
    for number in range(n):
        if number == n - 3:
            with clock.times("the last three requests"):
                for last in range(number, n):
                    _forget(lake, last)
            break
        _forget(lake, number)
    ask(clock, lake)


def _forget(lake: Lake, number: int) -> None:
    snapshot = resolve(lake, "scaling")
    selection = select(snapshot, Request(uris=(f"a.jsonl:{number + 1}",)))
    forget(make_plan(snapshot, selection))


DIMENSIONS: dict[str, tuple[int, Callable[[Clock, Path, int], None]]] = {
    "files": (5000, files),
    "documents": (5000, documents),
    "copies": (1000, copies),
    "sources": (500, sources),
    "domains": (250, domains),
    "snapshots": (8, snapshots),
    "forgotten": (8, forgotten),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dimensions", nargs="*", metavar="DIMENSION", help=", ".join(DIMENSIONS))
    parser.add_argument("--n", type=int, help="smallest size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as warm:  # compiles, and loads models
        documents(Clock(), Path(warm), 200)
    for name in options.dimensions or DIMENSIONS:
        least, measure = DIMENSIONS[name]
        n = options.n or least
        seconds: list[dict[str, float]] = []
        for size in (n, 2 * n, 4 * n):
            with tempfile.TemporaryDirectory() as folder:
                clock = Clock()
                measure(clock, Path(folder), size)
                seconds.append(clock.seconds)
        print(f"{name}: {n:,}, {2 * n:,}, {4 * n:,}")
        for what in seconds[0]:
            one, two, four = (measured[what] for measured in seconds)
            ratio = f"{(four - two) / max(two - one, 1e-3):5.1f}" if four >= 0.2 else "    -"
            print(f"  {what:24} {one:8.2f} {two:8.2f} {four:8.2f} {ratio}", flush=True)


if __name__ == "__main__":
    main()
