"""What Prefect costs a build: the same corpus built directly and as a flow, taking turns, on one server.

    python tests/bench/prefect_overhead.py --megabytes 100 --rounds 3

Prints the wall time of the whole command each way, the ratio of the medians, and what a build adds to the database,
after checking that both published the same snapshot.
"""

import argparse
import json
import lzma
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from flows.recipe import find_recipe
from flows.server import prefect_answers

RECIPE = """
name = "overhead"

[[sources]]
path = "texts/*.jsonl"
domain = "books"

[language]
detect = false
"""


def write_texts(folder: Path, megabytes: int) -> None:
    """Documents of about 2 kB: sentences of the quick-start's plays in random order, so that words are as frequent as in text."""
    plays = find_recipe("quickstart").parent / "drama/shakespeare.jsonl.xz"
    with lzma.open(plays, "rt", encoding="utf8") as lines:
        words = " ".join(json.loads(line)["text"] for line in lines).split()
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for number in range(max(1, megabytes // 5)):
        with (folder / f"{number:03}.jsonl").open("w", encoding="utf8") as file:
            while file.tell() < megabytes * 10**6 / max(1, megabytes // 5):
                sentences = [
                    " ".join(words[at : at + 12]).rstrip(",;:") + "."
                    for at in (rng.randrange(len(words) - 12) for _ in range(30))
                ]
                file.write(json.dumps({"text": " ".join(sentences)}) + "\n")


def start_server(home: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """A Prefect server of our own, as `gristmill up` has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline,storage,model",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    server = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not prefect_answers(environment["PREFECT_API_URL"], 1.0):
        time.sleep(0.2)
    return server, environment


def build(recipe: Path, lake: Path, environment: dict[str, str], how: str) -> tuple[float, str]:
    """Seconds of the whole command, and the snapshot's hash."""
    command = [sys.executable, "-m", "flows.cli", "build", str(recipe), "--lake", str(lake), how]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--json"], env=os.environ | environment, capture_output=True, text=True
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, json.loads(done.stdout)["hash"]


def main() -> None:
    """Run both sides and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_texts(folder / "texts", options.megabytes)
        recipe = folder / "overhead.toml"
        recipe.write_text(RECIPE)
        server, environment = start_server(folder / "prefect")
        try:
            took: dict[str, list[float]] = {"--no-flow": [], "--flow": []}
            hashes = set()
            for number in range(options.rounds):
                for how in sorted(took, reverse=bool(number % 2)):
                    seconds, found = build(recipe, folder / f"lake{number}{how}", environment, how)
                    took[how].append(seconds)
                    hashes.add(found)
            if len(hashes) != 1:
                raise SystemExit(f"the sides differ: {hashes}")
            database = sum(path.stat().st_size for path in (folder / "prefect").glob("prefect.db*"))
        finally:
            server.terminate()
            server.wait()
    direct, flow = (statistics.median(took[how]) for how in ("--no-flow", "--flow"))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; prefect {version('prefect')}; "
        f"{options.megabytes} MB, {options.rounds} rounds in turns, equal snapshots"
    )
    print(f"direct   {direct:6.1f} s   {', '.join(f'{s:.1f}' for s in took['--no-flow'])}")
    print(f"as flow  {flow:6.1f} s   {', '.join(f'{s:.1f}' for s in took['--flow'])}")
    print(
        f"ratio    {flow / direct:6.3f}; database {database / 1e6:.1f} MB after {options.rounds} flow runs"
    )


if __name__ == "__main__":
    main()
