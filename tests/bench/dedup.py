"""Near-duplicate removal beside datasketch, datatrove, rensa, gaoya and text-dedup, on a corpus whose truth is known.

    python tests/bench/dedup.py --cache FOLDER --peers VENV/bin/python --documents 100000 --plots FOLDER

Every tool runs in a process of its own on one core, the sides taking turns, from texts in memory to the list of
documents that it would remove; `dedup_tools.py` has what each is asked to do. All get the same documents in the same
order and the same bands; each `--peers` is the Python of an environment with some of them, such as

    pip install pyarrow datasketch rensa gaoya text-dedup datatrove spacy tokenizers 'xxhash<4'

Slow ones get a smaller corpus of the same make. Printed are, for each tool:

  MB/s      UTF-8 text per CPU-second, the median of the rounds
  bands     MB/s of ours at the same bands divided by it, nothing verified, as with most of the others
  checked   the same of ours as it is: every pair verified
  recall    planted pairs of which one document was removed, by their true Jaccard similarity and by kind
  below     removed documents without a kept one that is similar by 0.7 or holds them whole
  wrong     those of them whose similarity is below 0.5
  beyond    highest resident memory less what was resident (texts, imports) before

then, on demand, how time grows with the corpus, what one per cent of new documents costs in a lake, the command from
file to file, how long a first and a later start take, and what the guard against templates does for a site's pages.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from dedup_tools import TOOLS
from dedup_truth import Corpus, Quality, check_claims, judge
from dedup_whole import ONE_CORE, command, increment, start_up
from near_duplicate_corpus import PLANTED
from templated_site import compare_guard
from text_pools import read_pools

BINS = ((0.9, 1.01), (0.8, 0.9), (0.7, 0.8), (0.6, 0.7), (0.5, 0.6), (0.3, 0.5))


@dataclass
class Side:
    """A tool at its bands, and what its runs gave."""

    name: str
    bands: int
    rows: int
    corpus: Corpus
    python: str
    version: str
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Name, version and bands."""
        return f"{self.name} {self.version}, {self.bands} x {self.rows}"

    @property
    def speed(self) -> float:
        """MB of text per CPU-second."""
        return self.runs[0]["text_bytes"] / 1e6 / self.median("cpu_s")

    def median(self, key: str) -> float:
        """Of all rounds."""
        return statistics.median(run[key] for run in self.runs)

    def run(self) -> None:
        """One round."""
        with tempfile.NamedTemporaryFile(suffix=".json") as result:
            script = Path(__file__).with_name("dedup_tools.py")
            arguments = [self.name, self.corpus.path, self.bands, self.rows, result.name]
            done = subprocess.run(
                [self.python, str(script), *map(str, arguments)],
                env=os.environ | ONE_CORE,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise SystemExit(f"{self.title}:\n{done.stderr[-3000:]}")
            self.runs.append(json.loads(Path(result.name).read_text()))
        if self.runs[-1]["removed"] != self.runs[0]["removed"]:
            print(f"  {self.title}: its rounds removed different documents", flush=True)


def share(counts: tuple[int, int], quality: Quality) -> str:
    """Found of all, as a number of three digits; nothing for a tool that was not asked for duplicates."""
    return f"{counts[0] / counts[1]:.3f}" if counts[1] and quality.removed else "-"


def print_table(sides: Sequence[Side]) -> None:
    """All tools, a line each; then recall by kind."""
    ours = {(side.name, side.bands, side.rows): side for side in sides}
    heads = [f"{low:.1f}-{min(high, 1):.1f}" for low, high in BINS]
    print(
        f"\n{'tool':44}{'docs':>8}{'MB/s':>8}{'wall s':>8}{'bands':>8}{'checked':>8}"
        + "".join(f"{head:>9}" for head in heads)
        + f"{'removed':>9}{'below':>7}{'wrong':>7}{'beyond MB':>11}{'KB/doc':>8}"
    )
    judged = [
        judge(side.corpus, run["removed"], BINS, keeps_one=run["keeps_one"])
        for side, run in ((side, side.runs[0]) for side in sides)
    ]
    for side, quality in zip(sides, judged, strict=True):
        bases = (
            ours.get((name, side.bands, side.rows))
            for name in ("gristmill, bands alone", "gristmill")
        )
        ratios = [f"{base.speed / side.speed:.1f}x" if base else "-" for base in bases]
        beyond = side.median("beyond_text_bytes")
        documents = side.runs[0]["documents"]
        print(
            f"{side.title:44}{documents:8,}{side.speed:8.2f}{side.median('wall_s'):8.2f}"
            + "".join(f"{ratio:>8}" for ratio in ratios)
            + "".join(f"{share(quality.by_bin[limits], quality):>9}" for limits in BINS)
            + f"{quality.removed:9,}{quality.below:7}{quality.wrong:7}"
            + f"{beyond / 1e6:11.1f}{beyond / 1e3 / documents:8.2f}"
        )
    kinds = list(PLANTED)
    print(f"\n{'found by kind':44}" + "".join(f"{kind:>11}" for kind in kinds[:-1]))
    for side, quality in zip(sides, judged, strict=True):
        shares = (share(quality.by_kind[kind], quality) for kind in kinds[:-1])
        print(f"{side.title:44}" + "".join(f"{found:>11}" for found in shares))
    for low, high in BINS:
        theory = [
            f"{bands} x {rows} {1 - (1 - ((low + min(high, 1)) / 2) ** rows) ** bands:.3f}"
            for bands, rows in sorted({(side.bands, side.rows) for side in sides})
        ]
        print(f"by theory, bands alone, at {(low + min(high, 1)) / 2:.2f}: {', '.join(theory)}")


def growth(options: argparse.Namespace, python: str) -> list[tuple[str, list[tuple[int, float]]]]:
    """CPU seconds of ours at each size; printed as a table and given back for the plot."""
    sizes = [20_000, 100_000, *([400_000] if options.large else [])]
    lines = []
    print("\nCPU seconds by number of documents, and how much longer a MB takes than at the first")
    for name in ("gristmill, bands alone", "gristmill"):
        points = []
        for size in sizes:
            corpus = Corpus.open(options.cache, size, options.seed)
            side = Side(name, 25, 5, corpus, python, "")
            for _ in range(options.rounds):
                side.run()
            points.append(
                (size, side.median("cpu_s"), side.speed, side.median("beyond_text_bytes"))
            )
        shown = (
            f"{size:,}: {seconds:.2f} s, {speed:.0f} MB/s, x{points[0][2] / speed:.2f}, "
            f"{beyond / 1e3 / size:.2f} KB/doc"
            for size, seconds, speed, beyond in points
        )
        print(f"  {name:24} {'   '.join(shown)}", flush=True)
        lines.append((name, [(size, seconds) for size, seconds, *_ in points]))
    return lines


def plot(
    sides: Sequence[Side], lines: list[tuple[str, list[tuple[int, float]]]], folder: Path
) -> None:
    """Hand the figures over to `dedup_plots.py`."""
    from dedup_plots import plot_all  # needs matplotlib, which gristmill does not

    edges = [i / 20 for i in range(4, 20)]
    fine = [*pairwise(edges), (0.95, 1.01)]
    recall, speeds = [], []
    for side in sides:
        quality = judge(side.corpus, side.runs[0]["removed"], fine, with_contained=False)
        points = [
            ((low + min(high, 1)) / 2, found / number)
            for (low, high), (found, number) in quality.by_bin.items()
            if number >= 20
        ]
        if quality.removed:
            recall.append((f"{side.name}, {side.bands} x {side.rows}", points))
        speeds.append((side.title, side.speed))
    plot_all(recall, sorted({(side.bands, side.rows) for side in sides}), speeds, lines, folder)
    print(f"plots in {folder}")


def find_sides(options: argparse.Namespace) -> list[Side]:
    """What can run here: ours, and each peer in the first environment that has it."""
    have: dict[str, tuple[str, str]] = {}
    for python in [sys.executable, *options.peers]:
        if shutil.which(python) is None:
            raise SystemExit(f"--peers {python}: expected a Python, found no program there")
        script = Path(__file__).with_name("dedup_tools.py")
        done = subprocess.run([python, str(script)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(
                f"--peers {python}: expected a Python with pyarrow:\n{done.stderr[-1000:]}"
            )
        for package, number in json.loads(done.stdout).items():
            have.setdefault(package, (python, number))
    missing = sorted({tool.package for tool in TOOLS.values()} - set(have))
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    fast = Corpus.open(options.cache, options.documents, options.seed)
    slow = Corpus.open(options.cache, min(options.documents, options.slow_documents), options.seed)
    sides = []
    for name, tool in TOOLS.items():
        if tool.package in have and (not options.tools or name in options.tools):
            python, number = have[tool.package]
            is_ours = name in ("gristmill", "gristmill, bands alone")
            for bands, rows in options.bands if is_ours else options.bands[:1]:
                corpus = slow if tool.is_slow else fast
                sides.append(Side(name, bands, rows, corpus, python, number))
    return sides


def processor() -> str:
    """The name of this machine's processor."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.processor()


def bands_by_rows(text: str) -> tuple[int, int]:
    """14x8 -> (14, 8)."""
    bands, rows = text.split("x")
    return int(bands), int(rows)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "gristmill-bench",
        help="corpora",
    )
    parser.add_argument("--peers", action="append", default=[], metavar="PYTHON")
    parser.add_argument(
        "--tools",
        action="append",
        default=[],
        metavar="NAME",
        choices=list(TOOLS),
        help="only these",
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--slow-documents", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bands",
        type=bands_by_rows,
        action="append",
        metavar="BxR",
        help="repeatable; peers run at the first, ours at all (default 14x8 and 25x5)",
    )
    parser.add_argument("--growth", action="store_true", help="20,000 and 100,000 documents")
    parser.add_argument("--large", action="store_true", help="with --growth: 400,000 too")
    parser.add_argument(
        "--increment",
        type=int,
        default=0,
        metavar="DOCUMENTS",
        help="1 %% new ones in a lake of these",
    )
    parser.add_argument("--whole", action="store_true", help="the command, and starting")
    parser.add_argument(
        "--templates",
        type=int,
        default=0,
        metavar="PAGES",
        help="a site of these beside the corpus, with and without dedup.template_share",
    )
    parser.add_argument("--plots", type=Path, help="folder for PNG files")
    options = parser.parse_args()
    if min(options.documents, options.slow_documents) < 100 or options.rounds < 1:
        parser.error("expected 100 documents and one round at least")
    options.bands = options.bands or [(14, 8), (25, 5)]
    return options


def main() -> None:
    """Run everything and print the tables."""
    options = parse()
    sides = find_sides(options)
    print(
        f"{processor()}, one core, Python {platform.python_version()}; {options.rounds} rounds in turns"
    )
    for corpus in {side.corpus.path: side.corpus for side in sides}.values():
        print(
            f"{corpus.path.name}: {len(corpus.table):,} documents, {len(corpus.pairs):,} planted pairs"
        )
    for number in range(options.rounds):
        for side in sides:
            side.run()
            print(
                f"  round {number + 1}: {side.title} {side.runs[-1]['cpu_s']:.2f} s",
                file=sys.stderr,
            )
    print_table(sides)
    for side in sides:
        if side.runs[0]["claims"]:
            print(
                f"{side.title}: {check_claims(side.corpus, side.runs[0]['claims'], set(side.runs[0]['removed']))}"
            )
    lines = growth(options, sys.executable) if options.growth else []
    if options.increment:
        increment(Corpus.open(options.cache, options.increment, options.seed).table)
    if options.whole:
        command(sides[0].corpus.path)
        start_up(sides[0].corpus.path)
    if options.templates:
        corpus = Corpus.open(options.cache, options.documents, options.seed)
        compare_guard(corpus.table, read_pools()[0], options.templates, 0.85)
    if options.plots:
        plot(sides, lines, options.plots)


if __name__ == "__main__":
    main()
