"""A site in a process of its own, as a user has it, and what tests ask of it and do to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .prefect_api import ask, wait_until


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SiteProcess:
    """`gristmill up` with its lake, started, stopped and killed at will."""

    def __init__(self, lake: Path, *arguments: object, **environment: str) -> None:
        self.lake, self.port = lake, free_port()
        self.arguments = [str(argument) for argument in arguments]
        self.environment = {
            **os.environ,
            **environment,
            "OMP_NUM_THREADS": "1",
        }
        self.api = {"PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api"}
        self.process: subprocess.Popen[str] | None = None
        self.ready: dict[str, Any] = {}

    def start(self, *more: object) -> None:
        """Start it and wait until it says that it is ready."""
        with (self.lake.parent / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "flows.cli", "up", *self.arguments, *map(str, more)),
                    *("--lake", str(self.lake), "--port", str(self.port), "--json"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:  # ends early if the process does
            text += line
            if line == "}\n":
                break
        assert text, self.log()
        self.ready = json.loads(text)
        if self.ready["auth_file"]:
            self.api["PREFECT_API_AUTH_STRING"] = Path(self.ready["auth_file"]).read_text()

    def log(self) -> str:
        """What it said on stderr so far."""
        return (self.lake.parent / "up.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the end; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def processes(self) -> dict[int, str]:
        """Pid -> command line of everything that belongs to this site, found by its lake or its Prefect home."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                variables = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):  # gone meanwhile
                continue
            home = f"PREFECT_HOME={self.lake / 'site'}".encode()
            if state != "Z" and (str(self.lake) in command or home in variables):
                found[int(folder.name)] = command
        return found

    def kill_all(self) -> None:
        """What a power cut does to it: every process ends at the same moment."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(20)
        wait_until(lambda: not self.processes(), 20, "every process to end")

    def pid_of(self, part: str) -> int:
        """The one process of the site whose command line has that in it."""
        [pid] = [pid for pid, command in self.processes().items() if part in command]
        return pid

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Flow runs of a flow, oldest first, without those still to come."""
        rows = ask(
            self.api,
            "flow_runs/filter",
            {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"},
        )
        return [
            row for row in rows if not (row["state_type"] == "SCHEDULED" and row["auto_scheduled"])
        ]

    def wait_for(
        self, flow: str, states: set[str], seconds: float, number: int = 1
    ) -> list[dict[str, Any]]:
        """Wait until so many runs of the flow are in one of the states (by name or type); returns all its runs."""

        def look() -> list[dict[str, Any]] | None:
            try:
                runs = self.runs(flow)
            except OSError:  # the server is away
                return None
            there = [run for run in runs if states & {run["state_name"], run["state_type"]}]
            return runs if len(there) >= number else None

        try:
            return wait_until(look, seconds, f"{flow} to be {states}")
        except AssertionError as error:
            seen = [
                (run["name"], run["state_name"], run["state"]["message"]) for run in self.runs(flow)
            ]
            raise AssertionError(f"{error}; runs: {seen}; site: {self.log()[-3000:]}") from None

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        time.sleep(0.1)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def until_training_steps(lake: Path, least: int, seconds: float) -> None:
    """Wait until a training run in the lake has a checkpoint at or after that step."""

    def newest() -> int:
        states = lake.glob("runs/*/checkpoints/step-*/state.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in states), default=0)

    wait_until(lambda: newest() >= least, seconds, f"a checkpoint at step {least}")
