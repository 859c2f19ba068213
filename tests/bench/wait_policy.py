"""Should torch's threads sleep or spin while they wait? The quick-start's training under both, alone and beside work.

    python tests/bench/wait_policy.py [STEPS]

Trains the same run under OMP_WAIT_POLICY=passive (what `gristmill train` sets) and active (what OpenMP does by itself),
taking turns, first on idle cores, then beside one process for each core. Checks that both give the same weights and
losses, then prints the median tokens/s of each and their ratio.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3
POLICIES = ("passive", "active")


def gristmill(*arguments: object, **environment: str) -> dict:
    """Run a command and return its JSON document."""
    command = [str(Path(sys.executable).with_name("gristmill")), *map(str, arguments), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return json.loads(done.stdout)


def speed(lake: Path, run: str, steps: int, policy: str) -> tuple[float, str]:
    """Median tokens/s after the first steps, and the hash of the run."""
    settings = {
        "train.steps": steps,
        "train.warmup_steps": 2,
        "train.compile": "false",
        "train.sample_prompts": "[]",
        "train.final_eval_tokens": 1024,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    trained = gristmill(
        "train", "quickstart", "--lake", lake, "--run", run, *options, OMP_WAIT_POLICY=policy
    )
    lines = (lake / "runs" / run / "metrics.jsonl").read_text("utf8").splitlines()
    speeds = [row["tokens_per_s"] for row in map(json.loads, lines) if "tokens_per_s" in row]
    return statistics.median(speeds[3:]), trained["hash"]


def main() -> None:
    """Run both policies in both circumstances and print the table."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, {steps} steps of 2,048 tokens, {ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        gristmill("build", "quickstart", "--lake", lake)
        for place in ("idle cores", "beside other work"):
            neighbours = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(0 if place == "idle cores" else cores)
            ]
            try:
                found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
                hashes = set()
                for number in range(ROUNDS):
                    for policy in POLICIES:
                        name = f"{place}-{policy}-{number}".replace(" ", "-")
                        tokens_per_s, run_hash = speed(lake, name, steps, policy)
                        found[policy].append(tokens_per_s)
                        hashes.add(run_hash)
            finally:
                for neighbour in neighbours:
                    neighbour.kill()
                    neighbour.wait()
            if len(hashes) != 1:
                sys.exit(f"the runs differ: {sorted(hashes)}")
            passive, active = (statistics.median(found[policy]) for policy in POLICIES)
            print(
                f"{place:18} passive {passive:8,.0f} tokens/s   active {active:8,.0f} tokens/s   "
                f"ratio {passive / active:.2f}"
            )


if __name__ == "__main__":
    main()
