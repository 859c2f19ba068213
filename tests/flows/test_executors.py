"""Where a build runs is said on the command line or in the environment, and what contradicts itself is refused at once."""

import pytest

from flows.executors import chosen_executor, remember
from storage.errors import ConfigError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRISTMILL_EXECUTOR", "GRISTMILL_ADDRESS"):
        monkeypatch.setenv(name, "")


def test_by_default_all_cores_of_this_machine() -> None:
    """And as many as are asked for otherwise."""
    assert chosen_executor(None).kind == "processes"
    assert (chosen_executor(None).workers or 0) >= 1
    assert chosen_executor(3).workers == 3


def test_a_joined_cluster_is_used_whole() -> None:
    """This machine's cores say nothing about it."""
    assert chosen_executor(None, "dask", "tcp://head:8786").workers is None
    assert chosen_executor(4, "dask", "tcp://head:8786").workers == 4


def test_flows_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a site reaches its worker; a command passes its own options on that way."""
    monkeypatch.setenv("GRISTMILL_EXECUTOR", "ray")
    monkeypatch.setenv("GRISTMILL_ADDRESS", "auto")
    assert chosen_executor(None) == chosen_executor(None, "ray", "auto")
    remember(chosen_executor(2, "dask", "tcp://head:8786"))
    found = chosen_executor(2)
    assert (found.kind, found.address) == ("dask", "tcp://head:8786")


@pytest.mark.parametrize(
    ("kind", "address", "workers", "message"),
    [
        ("spark", "", None, "expected one of serial, processes, ray, dask, got 'spark'"),
        ("processes", "head:6379", None, "--address head:6379: 'processes' has none"),
        ("serial", "", 4, "--executor serial: expected one worker, got 4"),
    ],
)
def test_contradictions_are_refused(
    kind: str, address: str, workers: int | None, message: str
) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        chosen_executor(workers, kind, address)


def test_the_command_line_passes_them_on(gristmill, tiny_recipe, tmp_path) -> None:
    """Exit code 2, as for every option that is wrong."""
    for options in (["--executor", "spark"], ["--address", "head:6379"]):
        answer = gristmill("build", tiny_recipe, "--lake", tmp_path / "lake", *options)
        assert answer.code == 2
        assert options[1] in answer.err
    assert not (tmp_path / "lake").exists()


def test_a_cluster_that_is_not_there_is_told(gristmill, tiny_recipe, tmp_path) -> None:
    """At once, by its address."""
    pytest.importorskip("ray", reason="ray is not installed")
    options = ("--executor", "ray", "--address", "127.0.0.1:1")
    answer = gristmill("build", tiny_recipe, "--lake", tmp_path / "lake", *options)
    assert answer.code == 2
    assert "--address 127.0.0.1:1: no Ray cluster answers there" in answer.err
