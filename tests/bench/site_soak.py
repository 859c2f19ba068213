"""A site under many scheduled builds: does anything grow?

    python tests/bench/site_soak.py --builds 20 --every 15

Runs `gristmill up` on a small corpus that gets a new file before every second build, and prints after each build its
outcome, and memory, processes and open files of the site; then the size of its database.
"""

import argparse
import base64
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "is",
    "was",
    "he",
    "for",
    "it",
    "with",
    "as",
    "his",
    "on",
    "be",
    "at",
    "by",
    "had",
    "not",
    "are",
    "but",
    "from",
    "or",
    "have",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
    "all",
    "her",
    "she",
    "there",
    "would",
    "their",
    "we",
    "him",
    "been",
    "has",
    "when",
    "who",
    "will",
    "no",
    "more",
    "if",
    "out",
    "so",
    "up",
    "said",
    "what",
    "its",
    "about",
]

RECIPE = """
name = "soak"

[[sources]]
path = "texts/*.txt"
domain = "books"

[language]
detect = false

[toxicity]
enabled = false

[tokenizer]
vocab_size = 400

[on_snapshot]
train = false

[[schedules]]
every_s = {every}
"""


def write_text(folder: Path, number: int) -> None:
    """A file of a few documents that no other is like."""
    rng = random.Random(number)
    for part in range(12):
        sentences = [" ".join(rng.choices(WORDS, k=12)).capitalize() + "." for _ in range(40)]
        (folder / f"{number:03}-{part:02}.txt").write_text(" ".join(sentences))


def belongings(lake: Path) -> dict[str, tuple[int, int]]:
    """Name -> (resident bytes, open files) of the site's lasting programs, found by their Prefect home."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            variables = (folder / "environ").read_bytes()
            pages = int((folder / "statm").read_text().split()[1])
            files = len(list((folder / "fd").iterdir()))
        except OSError:
            continue
        if f"PREFECT_HOME={lake / 'site'}".encode() not in variables and str(lake) not in command:
            continue
        kinds = {"site_server start": "server", "worker start": "worker", "flows.cli up": "site"}
        kind = next((name for part, name in kinds.items() if part in command), "run")
        found[f"{kind}-{folder.name}"] = (pages * os.sysconf("SC_PAGE_SIZE"), files)
    return found


def ended(lake: Path, port: int) -> list[str]:
    """Outcomes of the builds that have ended, oldest first."""
    question = {"flows": {"name": {"any_": ["build-corpus"]}}, "sort": "EXPECTED_START_TIME_ASC"}
    auth = base64.b64encode((lake / "site/auth-string").read_bytes()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/flow_runs/filter",
        json.dumps(question).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {auth}"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        rows = json.load(answer)
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    return [row["state_name"] for row in rows if row["state_type"] in final]


def main() -> None:
    """Run the site until it has built that often, and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=20)
    parser.add_argument("--every", type=int, default=15, help="seconds")
    parser.add_argument("--port", type=int, default=4321)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, lake = Path(name), Path(name) / "lake"
        (folder / "texts").mkdir()
        write_text(folder / "texts", 0)
        recipe = folder / "soak.toml"
        recipe.write_text(RECIPE.format(every=options.every))
        command = [sys.executable, "-m", "flows.cli", "up", str(recipe), "--lake", str(lake)]
        site = subprocess.Popen([*command, "--port", str(options.port)])
        try:
            seen = -1
            while seen < options.builds:
                time.sleep(1)
                if site.poll() is not None:
                    raise SystemExit(f"the site has ended with code {site.returncode}")
                try:
                    outcomes = ended(lake, options.port)
                except OSError:
                    continue
                if len(outcomes) <= max(seen, 0):
                    continue
                seen = len(outcomes)
                if seen % 2 == 0:
                    write_text(folder / "texts", seen)
                held = belongings(lake)
                lasting = {key.split("-")[0]: held[key] for key in sorted(held) if "run" not in key}
                shown = ", ".join(
                    f"{key} {size / 1e6:.0f} MB {files} files"
                    for key, (size, files) in lasting.items()
                )
                database = sum(path.stat().st_size for path in (lake / "site").glob("prefect.db*"))
                print(
                    f"build {seen:3} {outcomes[-1]:10} {shown}, {len(held)} processes, "
                    f"database {database / 1e6:.2f} MB",
                    flush=True,
                )
            print({state: outcomes.count(state) for state in sorted(set(outcomes))})
        finally:
            site.send_signal(signal.SIGTERM)
            print("exit code", site.wait())


if __name__ == "__main__":
    main()
