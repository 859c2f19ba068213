"""`doctor` finds what would fail later."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flows import doctor
from flows.doctor import run_checks
from pipeline import kernels


def test_sound_installation(gristmill: Callable[..., Any], tmp_path: Path) -> None:
    """Versions with their pins, lake, memory, disk and server are looked at, and nothing is left behind."""
    lake = tmp_path / "lake"
    answer = gristmill("doctor", "--lake", lake, "--json")
    checks = {check["name"]: check for check in answer.json["checks"]}
    assert answer.code == 0, answer.err
    assert answer.json["sound"]
    assert checks["fastapi"]["found"] == f"{version('fastapi')} (<0.151)"
    assert "<2.1" in checks["sqlalchemy"]["found"]
    assert {
        "python",
        "import torch",
        "processor",
        "memory",
        "lake",
        "prefect server",
    } <= checks.keys()
    assert not lake.exists()


def test_recall_curve_of_the_default_bands(gristmill: Callable[..., Any], tmp_path: Path) -> None:
    """A probability for each similarity, rising to 1; the plain form prints the same."""
    found = gristmill("doctor", "--lake", tmp_path, "--json").json["near_duplicates"]
    curve = {point["similarity"]: point["probability"] for point in found["curve"]}
    assert curve[0.7] == round(1 - (1 - 0.7 ** found["rows"]) ** found["bands"], 6)
    assert sorted(curve.values()) == list(curve.values())
    assert curve[0.3] < 0.1
    assert curve[0.95] == 1
    printed = gristmill("doctor", "--lake", tmp_path).out
    assert f"how likely {found['bands']} bands of {found['rows']} find a pair" in printed
    assert f"{curve[0.7]:.4f}" in printed


def test_table_has_one_line_a_check(gristmill: Callable[..., Any], tmp_path: Path) -> None:
    """The plain form says the same."""
    answer = gristmill("doctor", "--lake", tmp_path)
    assert answer.code == 0
    assert len(answer.out.splitlines()) >= len(list(run_checks(str(tmp_path))))


def test_compiled_loops_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty file after a power cut costs a warning that names it, and no check fails."""
    file = tmp_path / "clusters.find_roots.nbc"
    file.write_bytes(b"")
    monkeypatch.setitem(vars(kernels.find_roots), "paths", [file])
    check = {check.name: check for check in run_checks(str(tmp_path))}["compiled loops"]
    assert check.status == "warning"
    assert check.found == f"{file} is empty"
    assert "compiled again" in check.advice


def test_wrong_version_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A version outside its pin, and a package that is not there, fail with the command that puts it right."""
    monkeypatch.setattr(
        doctor,
        "requires",
        lambda _: ["rich>=999", "no-such-package-at-all>=1", "x; extra == 'test'"],
    )
    checks = {check.name: check for check in run_checks(str(tmp_path))}
    assert checks["rich"].status == checks["no-such-package-at-all"].status == "failed"
    assert checks["rich"].advice == "pip install 'rich>=999'"
    assert "x" not in checks


def test_native_part_that_does_not_load_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A module that raises on import is a finding, not a crash."""
    monkeypatch.setattr(doctor, "NATIVE", ("no_such_module",))
    checks = {check.name: check for check in run_checks(str(tmp_path))}
    assert checks["import no_such_module"].status == "failed"


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
def test_lake_that_cannot_be_written_fails(gristmill: Callable[..., Any]) -> None:
    """A lake where nothing can be made is exit code 1, told as a check."""
    answer = gristmill("doctor", "--lake", "/proc/lake", "--json")
    assert answer.code == 1
    assert not answer.json["sound"]
    assert (
        next(check for check in answer.json["checks"] if check["name"] == "lake")["status"]
        == "failed"
    )


def test_dead_server_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PREFECT_API_URL that nobody answers at matters to --flow only."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    checks = {check.name: check for check in run_checks(str(tmp_path))}
    assert checks["prefect server"].status == "warning"
