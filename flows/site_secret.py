"""What keeps a site to its owner: an authentication string, the file that enters it in a browser, and private files.

The string lies in `auth-string` in the site's folder, from which only the owner can read. It never stands in a list of
processes, a log or a recipe.
"""

import html
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from storage.errors import ConfigError
from storage.lake import Lake

SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
"""user:password that a server asks for; Prefect's own variable. In the environment of `up` it replaces the random one."""

CLIENT_AUTH = "PREFECT_API_AUTH_STRING"
"""user:password that Prefect's clients send."""

ENTER_PATH = "/gristmill/enter"
"""Where a browser proves that it knows the string (`flows/site_guard.py`)."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


LOCK = "site"
"""The lake's lock that its running site holds."""


def site_folder(lake: Lake) -> Path:
    """Where the site of a lake keeps database, settings and logs; on this machine also for a lake in a bucket."""
    return (lake.root or lake.cache) / "site"


def auth_file(folder: Path) -> Path:
    """Where a site keeps its authentication string."""
    return folder / "auth-string"


def entrance_file(folder: Path) -> Path:
    """A page on this disk that logs a browser in."""
    return folder / "open.html"


def auth_string(folder: Path) -> str:
    """user:password of a site: from the environment, else as it was at the last start, else a random one.

    `folder` must be private. Raises ConfigError if what is found cannot be one.
    """
    file = auth_file(folder)
    if given := os.environ.get(SERVER_AUTH, ""):
        found = _checked(given, SERVER_AUTH)
    elif file.is_symlink() or file.exists():
        found = _checked(_read_own(file).strip(), str(file))
    else:
        found = f"gristmill:{secrets.token_urlsafe(32)}"
    write_private(file, found)
    return found


def _checked(text: str, where: str) -> str:
    # Prefect compares ASCII alone, and its UI encodes no more than Latin-1.
    if not (text.isascii() and text.isprintable() and re.fullmatch(r"[^:\s]+:\S.*", text)):
        raise ConfigError(
            f"{where}: expected user:password in printable ASCII, got something else (not shown); correct it, or "
            "remove it to have a random one made"
        )
    return text


def _read_own(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise ConfigError(
            f"{file}: expected a file of yours: {error.strerror}; remove it"
        ) from error
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as opened:
        return opened.read(4096)


def site_auth(folder: Path) -> dict[str, str]:
    """Environment variables that let a process use the site's own server; none if the site uses another one."""
    with suppress(OSError, ValueError, KeyError):
        profile = _profile(folder)
        return {key: profile[key] for key in (SERVER_AUTH, CLIENT_AUTH)}
    return {}


def auth_for(lake: Lake, api_url: str) -> str:
    """user:password that the lake's running site asks for at `api_url`; empty if its server is not the one there."""
    with suppress(OSError, ValueError, KeyError):
        profile = _profile(site_folder(lake))
        # At the address of a site that is down, somebody else may listen.
        if profile["PREFECT_API_URL"] == api_url.rstrip("/") and lake.lock_holder(LOCK):
            return profile[CLIENT_AUTH]
    return ""


def _profile(folder: Path) -> dict[str, str]:
    return tomllib.loads((folder / "profiles.toml").read_text())["profiles"]["gristmill"]


# --- files -------------------------------------------------------------------------------------


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that its owner alone can read."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def keep_private(folder: Path, others: Iterable[Path] = ()) -> list[str]:
    """Make the folder, if need be, and take all rights to it, to what is in it and to `others` from everybody else.

    Returns what to tell the user. Raises ConfigError if the folder is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.geteuid() != 0:
        raise ConfigError(
            f"{folder}: expected a folder of yours, got one of user {owner}, who could read and change all that the "
            "site keeps there; use another lake, or have the folder removed"
        )
    was_open = _close(folder)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            was_open |= _close(Path(parent, name))
    was_open |= sum(map(_close, others)) > 0
    if folder.stat().st_mode & _OTHERS:
        return [
            f"{folder}: its file system keeps no rights, so other users of this machine may read the site's database "
            "and password; put the lake where it does"
        ]
    if was_open:
        return [
            f"{folder}: other users of this machine could read the site's database until now; if there are any, "
            "renew the passwords of [[notify]]"
        ]
    return []


def _close(path: Path) -> bool:
    """Whether others had rights to it; they have none from now on."""
    with suppress(FileNotFoundError):  # a journal of SQLite comes and goes
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & _OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
            return True
    return False


def write_entrance(folder: Path, origin: str, auth: str) -> None:
    """Write the page that logs a browser in: a form sent by itself, so that no address ever holds the password."""
    action, value = html.escape(origin + ENTER_PATH), html.escape(auth)
    write_private(
        entrance_file(folder),
        f"""<!doctype html>
<meta charset="utf-8">
<title>gristmill</title>
<form method="post" action="{action}">
<input type="hidden" name="auth" value="{value}">
<button>Enter {html.escape(origin)}</button>
</form>
<script>document.forms[0].submit()</script>
""",
    )
