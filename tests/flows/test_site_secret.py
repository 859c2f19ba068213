"""A site's password and files: made once, kept, and readable by their owner alone, whatever lay there before."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.site_secret import (
    CLIENT_AUTH,
    SERVER_AUTH,
    auth_file,
    auth_for,
    auth_string,
    entrance_file,
    keep_private,
    site_auth,
    site_folder,
    write_entrance,
    write_private,
)
from flows.site_settings import SiteOptions, environment, settings, write_profile
from storage.errors import ConfigError
from storage.lake import Lake


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER_AUTH, raising=False)
    monkeypatch.delenv(CLIENT_AUTH, raising=False)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_password_is_random_stable_and_private(tmp_path: Path) -> None:
    """Another lake has another one; the next start has the same; only its owner can read it."""
    first, second = tmp_path / "one/site", tmp_path / "two/site"
    for folder in (first, second):
        assert keep_private(folder) == []
    made = auth_string(first)
    user, _, password = made.partition(":")
    assert user == "gristmill" and len(password) >= 32
    assert auth_string(second) != made
    assert auth_string(first) == auth_file(first).read_text() == made
    assert mode(first) == 0o700 and mode(auth_file(first)) == 0o600


def test_password_of_the_environment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces the random one, also for commands that do not have it in their environment."""
    auth_string(tmp_path)
    monkeypatch.setenv(SERVER_AUTH, "me:my secret")
    assert auth_string(tmp_path) == "me:my secret"
    monkeypatch.delenv(SERVER_AUTH)
    assert auth_string(tmp_path) == "me:my secret"


@pytest.mark.parametrize("text", ["secret", ":", "me:", ":secret", "m\xfc:secret", "a:b\nc:d", " "])
def test_unusable_password_is_refused_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Prefect would answer each request with an error; the message says where it stands and does not show it."""
    auth_file(tmp_path).write_text(text)
    with pytest.raises(ConfigError, match="auth-string: expected user:password") as refused:
        auth_string(tmp_path)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv(SERVER_AUTH, text)
    with pytest.raises(ConfigError, match=f"{SERVER_AUTH}: expected user:password"):
        auth_string(tmp_path)


def test_password_is_not_read_through_a_link(tmp_path: Path) -> None:
    """A link that somebody else left there leads where they want."""
    (tmp_path / "elsewhere").write_text("known:to-them")
    auth_file(tmp_path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="auth-string: expected a file of yours"):
        auth_string(tmp_path)


def test_what_was_open_is_closed_and_told(tmp_path: Path) -> None:
    """Files and folders of an earlier version; links lead to files that are not the site's, and stay as they are."""
    folder, outside = tmp_path / "site", tmp_path / "outside"
    (folder / "storage/deep").mkdir(parents=True)
    outside.write_text("open")
    outside.chmod(0o644)
    (folder / "link").symlink_to(outside)
    names = ("prefect.db", "prefect.db-wal", "prefect.db-shm", "server.log", "storage/deep/result")
    for name in names:
        (folder / name).write_text(name)
        (folder / name).chmod(0o666)
    database = tmp_path / "mine.db"
    database.touch(0o644)
    [told] = keep_private(folder, [database, tmp_path / "mine.db-wal"])
    assert "renew the passwords" in told
    for path in [folder, *folder.rglob("*"), database]:
        if not path.is_symlink():
            assert not mode(path) & 0o077, path
    assert mode(folder / "storage/deep") == 0o755 & 0o700
    assert mode(outside) == 0o644
    assert keep_private(folder, [database]) == []


def test_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    """Whatever rights the file, or one left over by a kill, had before."""
    path = tmp_path / "profiles.toml"
    for name in (path, tmp_path / "profiles.toml.partial"):
        name.write_text("old")
        name.chmod(0o666)
    write_private(path, "new")
    assert path.read_text() == "new" and mode(path) == 0o600
    assert sorted(tmp_path.iterdir()) == [path]


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns the folder in a shared lake can swap its files."""
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    with pytest.raises(ConfigError, match=f"expected a folder of yours, got one of user {us}"):
        keep_private(tmp_path)


def test_own_processes_get_the_password_by_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site's own one wins over what the user has for another server; without a server of its own, the user's stays."""
    lake = Lake.open(tmp_path / "lake")
    folder = site_folder(lake)
    keep_private(folder)
    monkeypatch.setenv(CLIENT_AUTH, "me:another")
    write_profile(folder, settings(folder, SiteOptions(), "a:b"))
    assert mode(folder / "profiles.toml") == 0o600
    assert environment(folder)[CLIENT_AUTH] == environment(folder)[SERVER_AUTH] == "a:b"
    # Only to the running site's own address: somebody else may listen elsewhere, or where a site has ended.
    assert auth_for(lake, "http://127.0.0.1:4200/api") == ""
    with lake.lock("site", doing="testing"):
        assert auth_for(lake, "http://127.0.0.1:4200/api") == "a:b"
        assert auth_for(lake, "http://127.0.0.1:4201/api") == ""
    write_profile(folder, settings(folder, None))
    assert site_auth(folder) == {} and CLIENT_AUTH not in environment(folder)


def test_entrance_holds_the_password_in_a_form(tmp_path: Path) -> None:
    """No address has it: addresses are kept in the browser's history. Signs of markup stay text."""
    write_entrance(tmp_path, "http://127.0.0.1:4200", 'me:"><script>')
    page = entrance_file(tmp_path).read_text()
    assert mode(entrance_file(tmp_path)) == 0o600
    assert 'action="http://127.0.0.1:4200/gristmill/enter"' in page
    assert 'value="me:&quot;&gt;&lt;script&gt;"' in page


@pytest.mark.parametrize(
    "origin",
    ["mill.example.org", "ftp://mill.example.org", "https://mill.example.org/x", "https://",
     "https://a@mill.example.org", "https://mill.example.org:x", "null", "*"],
)  # fmt: skip
def test_origin_that_is_none_is_refused(origin: str) -> None:
    """It would match nothing, or everything."""
    with pytest.raises(ConfigError, match="--origin: expected http"):
        SiteOptions(origins=(origin,))
