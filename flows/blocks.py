"""Where notifications go: the `Email` block, and blocks made from an environment variable's URL.

Prefect's server imports this module by the entry point `gristmill` in the group `prefect.collections`, so that its
automations can send e-mail; it must stay light. An address with its password is held by Prefect, encrypted, and stands
in no recipe, parameter, automation, log or message.
"""

import asyncio
import smtplib
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from prefect.blocks.abstract import NotificationBlock, NotificationError
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, SecretStr, field_validator

from flows.remote import call, fingerprint, read_all
from storage.errors import ConfigError
from storage.lake import Lake

TIMEOUT_S = 30.0
"""For each answer of a mail server."""
URL_FORMS = "https://... or smtp://user:password@host:587/?to=you@example.org"
"""What a notification's URL may be, for messages."""


class Email(NotificationBlock):
    """Sends notifications by e-mail, through any SMTP server."""

    _block_type_name = "Email"
    _block_type_slug = "email"
    # What was typed in the UI is checked when it is used, and its error stands in an event.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: SecretStr = Field(
        default=...,
        title="Mail server",
        description=(
            "smtp://user:password@host:587/?to=a@example.org,b@example.org&from=c@example.org: TLS by STARTTLS, "
            "which a password demands; or smtps://... on port 465: TLS from the start. %40 stands for an @ in a "
            "name or password. Without from, the user's or the first receiver's address is the sender's."
        ),
    )

    @field_validator("url")
    @classmethod
    def _is_mail_url(cls, url: SecretStr) -> SecretStr:
        if not _is_smtp(url.get_secret_value()):
            raise ValueError(f"expected {URL_FORMS.rpartition(' ')[2]}")
        return url

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send it to all receivers. Raises NotificationError if the server does not take it for each of them."""
        try:
            await asyncio.to_thread(_send, urlsplit(self.url.get_secret_value()), body, subject)
        except (OSError, smtplib.SMTPException) as error:
            raise NotificationError(f"{type(error).__name__}: {error}") from None


def _is_smtp(text: str) -> bool:
    try:
        url = urlsplit(text)
        is_mail = url.scheme in ("smtp", "smtps") and url.port != 0
        return is_mail and bool(url.hostname) and bool(_receivers(url))
    except ValueError:  # a port that is no number, half an address
        return False


def _receivers(url: SplitResult) -> list[str]:
    given = ",".join(parse_qs(url.query).get("to", []))
    return [address for part in given.split(",") if "@" in (address := part.strip())]


def _send(url: SplitResult, body: str, subject: str | None) -> None:
    user, password = unquote(url.username or ""), unquote(url.password or "")
    receivers = _receivers(url)
    message = EmailMessage()
    message["Subject"] = " ".join((subject or "gristmill").split())
    message["From"] = parse_qs(url.query).get("from", [user if "@" in user else receivers[0]])[0]
    message["To"] = ", ".join(receivers)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="gristmill")
    message.set_content(body)
    host, context = url.hostname or "", ssl.create_default_context()
    if url.scheme == "smtps":
        server = smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(host, url.port or 587, timeout=TIMEOUT_S)
    with server:
        server.ehlo()
        # A password is never sent in the clear: starttls() raises where the server has none.
        if url.scheme == "smtp" and (password or server.has_extn("starttls")):
            server.starttls(context=context)
        if password:
            server.login(user, password)
        refused = server.send_message(message)
        if refused:
            raise smtplib.SMTPRecipientsRefused(refused)


# --- on the server -----------------------------------------------------------------------------


_JSON = {"Content-Type": "application/json"}


def block_of_url(url: str) -> Webhook | Email:
    """The block that sends to a URL. Raises ConfigError, which does not show it, if it can be none."""
    if _is_smtp(url):
        return Email(url=SecretStr(url))
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return Webhook(url=SecretStr(url), headers=SecretDict(_JSON))
    raise ConfigError(
        f"expected {URL_FORMS}, got something else (not shown: it may hold a password)"
    )


def offer_email(client: SyncPrefectClient) -> list[str]:
    """Let the server's UI offer the Email block."""
    types = {"block_types": {"slug": {"any_": ["email"]}}}
    for found in read_all(client, "/block_types/filter", types):
        schemas = {"block_schemas": {"block_type_id": {"any_": [found["id"]]}}}
        for schema in read_all(client, "/block_schemas/filter", schemas):
            if schema["checksum"] == Email._calculate_schema_checksum():
                return []
    Email.register_type_and_schema()
    return ["block type email: made"]


def keep_blocks(
    client: SyncPrefectClient, lake: Lake, urls: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Make, change and remove this lake's blocks so that there is one for each environment variable's URL.

    Gives `type/name` by variable, and one line a change. Raises ConfigError if a URL is none.
    """
    mark = f"-{fingerprint(lake.url)}"
    wanted: dict[str, Webhook | Email] = {}
    names = {}
    for variable, url in urls.items():
        block = block_of_url(url)
        name = f"gristmill-{variable.lower().replace('_', '-')}{mark}"
        names[variable] = f"{block.get_block_type_slug()}/{name}"
        wanted[names[variable]] = block
    changes, kept = [], set()
    for name, found in named_blocks(client).items():
        if not (found["name"].startswith("gristmill-") and found["name"].endswith(mark)):
            continue
        path = f"/block_documents/{found['id']}"
        if name not in wanted:
            call(client, "DELETE", path)
            changes.append(f"block {name}: removed")
            continue
        held = call(client, "GET", f"{path}?include_secrets=true")["data"]
        if held.get("url") == wanted[name].url.get_secret_value():
            kept.add(name)
    for name, block in wanted.items():
        if name not in kept:
            block.save(name.partition("/")[2], overwrite=True)
            changes.append(f"block {name}: made")
    return names, changes


def named_blocks(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    """All blocks with a name, without their secrets, by `type/name`."""
    question = {"block_documents": {"is_anonymous": {"eq_": False}}}
    found = read_all(client, "/block_documents/filter", question)
    return {f"{block['block_type']['slug']}/{block['name']}": block for block in found}
