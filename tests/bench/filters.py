"""How fast documents are judged by the quality rules, beside the same rules on Python strings, and beside datatrove's.

    OMP_NUM_THREADS=1 python tests/bench/filters.py [--peers VENV/bin/python] [FILE...]

Reads JSONL files (plain, xz or zst; field `text`; without FILE, the prose that ships with the quick-start: plays and
articles) and draws documents of log-normal length (median 2.5 KB) from them, 20 MB in all. Checks first that the
verdicts on strings (`tests/pipeline/python_scan.py`) are the same, then lets all sides take turns and prints MB of text
per CPU-second (median of ROUNDS), and our ratio. `--peers` is the Python of an environment with

    pip install pyarrow datatrove spacy 'xxhash<4'

whose Gopher quality, Gopher repetition, C4 and FineWeb filters judge the same documents, each as far as the first that
drops it: much the rules of our profile "web", with words as spaCy splits them, so that verdicts differ in places.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

ROUNDS = 5
SLOW_SIZE = 2_000_000  # bytes of the same documents for the slow sides
PROFILES = ("books", "poetry", "chat", "code", "web")
ROOT = Path(__file__).parents[2]


def judge_strings(texts: list[str], domain: str) -> list[dict[str, Any]]:
    """The verdicts of a profile, document by document and rule by rule, on strings."""
    from pipeline.filters import active_rules
    from pipeline.profiles import PROFILES
    from pipeline.stage import KEEP

    sys.path.insert(0, str(ROOT / "tests" / "pipeline"))
    reference = importlib.import_module("python_scan")
    rules, verdicts = active_rules(PROFILES[domain]), []
    for text in texts:
        document, verdict = reference.scan(text), KEEP
        for rule, limit in rules.items():
            value = reference.MEASURES[rule](document)
            if value is not None and (value < limit if rule[:4] == "min_" else value > limit):
                found = {"value": float(value), "threshold": limit, "detail": None}
                verdict = {"rule": rule, **found}
                break
        verdicts.append(verdict)
    return verdicts


def judge_datatrove(texts: list[str]) -> list[bool]:
    """Whether all of datatrove's filters keep each text."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = [
        GopherQualityFilter(),
        GopherRepetitionFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    # A filter gives False, or False and a reason.
    return [all(rule.filter(each) is True for rule in filters) for each in documents]


def measure_peer(path: str) -> None:
    """Run in the peer's environment: judge the texts of a JSON file, print seconds and the share that was kept."""
    texts = json.loads(Path(path).read_text())
    judge_datatrove(texts[:20])  # imports, loads its word splitter
    begin = time.process_time()
    kept = judge_datatrove(texts)
    seconds = time.process_time() - begin
    print(json.dumps([seconds, sum(kept) / len(kept), version("datatrove")]))


def run_peer(python: str, path: Path) -> tuple[float, float, str]:
    """Seconds, share kept and version of a run in a process of its own."""
    done = subprocess.run(
        [python, __file__, "--peer", str(path)], check=True, stdout=subprocess.PIPE, text=True
    )
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def seconds_of(run: Callable[[], object]) -> float:
    """CPU-seconds of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--peers", help="Python of an environment with datatrove")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        measure_peer(arguments.peer)
        return
    from signatures import processor, read_documents

    from pipeline.filters import QualityConfig, judge_quality

    shipped = ROOT / "flows" / "recipes" / "quickstart"
    files = [shipped / "drama/shakespeare.jsonl.xz", shipped / "science/plos.jsonl.zst"]
    texts = read_documents(arguments.files or files)
    few, few_size = [], 0
    while few_size < SLOW_SIZE:
        few.append(texts[len(few)])
        few_size += len(few[-1].encode())

    def batch(texts: list[str], domain: str) -> pa.RecordBatch:
        return pa.record_batch({"text": texts, "domain": [domain] * len(texts)})

    config = QualityConfig()
    begun = time.process_time()
    judge_quality(batch(few[:1], "web"), config)
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; numba {version('numba')}; ", end=""
    )
    print(f"first call {time.process_time() - begun:.2f} CPU-s")
    for domain in PROFILES:
        verdicts = judge_quality(batch(few, domain), config).to_pylist()
        assert verdicts == judge_strings(few, domain), domain
    size = sum(len(text.encode()) for text in texts)
    print(f"verdicts equal to those on strings: {len(few):,} documents, {len(PROFILES)} profiles")
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB; MB per CPU-second:\n")

    ours: dict[str, list[float]] = {domain: [] for domain in PROFILES}
    strings: dict[str, list[float]] = {domain: [] for domain in PROFILES}
    peers: list[tuple[float, float, str]] = []
    batches = {domain: batch(texts, domain) for domain in PROFILES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(few))
        for _ in range(ROUNDS):
            for domain in PROFILES:
                own, other = batches[domain], domain
                ours[domain].append(seconds_of(lambda own=own: judge_quality(own, config)))
                strings[domain].append(seconds_of(lambda other=other: judge_strings(few, other)))
            if arguments.peers:
                peers.append(run_peer(arguments.peers, path))
    print(f"{'profile':10}{'ours':>8}{'strings':>10}{'ratio':>8}{'kept':>9}")
    speeds = {domain: size / statistics.median(ours[domain]) / 1e6 for domain in PROFILES}
    for domain, speed in speeds.items():
        slow = few_size / statistics.median(strings[domain]) / 1e6
        kept = judge_quality(batches[domain], config).field("rule").null_count / len(texts)
        print(f"{domain:10}{speed:8.1f}{slow:10.2f}{speed / slow:8.1f}{kept:9.1%}")
    if peers:
        seconds, shares, versions = zip(*peers, strict=True)
        slow = few_size / statistics.median(seconds) / 1e6
        ratio = f'{speeds["web"] / slow:.0f} x slower than our profile "web"'
        print(f"\ndatatrove {versions[0]}: {slow:.3f} MB/CPU-s, {ratio}, kept {shares[0]:.1%}")


if __name__ == "__main__":
    main()
