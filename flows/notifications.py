"""Whom to tell of what: a recipe's `[[notify]]` sections as automations' actions.

A webhook gets one JSON document, every other block a subject and a text. Both are templates that Prefect's server
fills in from the event, so they are made of what `flows/events.py` says a payload holds.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook, SendNotification
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from flows import events
from flows.blocks import block_of_url, keep_blocks, named_blocks, offer_email
from flows.config import NotifyConfig, Occasion, Recipe
from storage.errors import ConfigError
from storage.lake import Lake


@dataclass(frozen=True)
class _News:
    """The event of an occasion, and what is told of it."""

    event: str
    subject: str
    body: str


_LOSS = (
    "{% if event.payload.bits_per_byte is number %}"
    ", {{ event.payload.bits_per_byte | round(4) }} bits per byte{% endif %}"
)
_NEWS: dict[Occasion, _News] = {
    "gate failed": _News(
        events.SNAPSHOT_QUARANTINED,
        "{{ event.payload.corpus }}: {{ event.payload.snapshot }} was refused by a gate",
        "{{ event.payload.why }}",
    ),
    "source gone": _News(
        events.SOURCE_GONE,
        "{{ event.payload.corpus }}: the source {{ event.payload.source }} is gone",
        "{{ event.payload.why }}",
    ),
    "training finished": _News(
        events.RUN_FINISHED,
        "{{ event.payload.corpus }}: {{ event.payload.run }} is trained" + _LOSS,
        "Trained on {{ event.payload.snapshot }}.",
    ),
    "release promoted": _News(
        events.RELEASE_PROMOTED,
        "{{ event.payload.corpus }}: release {{ event.payload.release }} is {{ event.payload.run }}"
        + _LOSS,
        "{{ event.payload.why }}",
    ),
}
assert set(_NEWS) == set(get_args(Occasion))


@dataclass(frozen=True)
class Notification:
    """One automation to be: at `event` about `corpus`, do `action`."""

    corpus: str
    occasion: str
    event: str
    teller: str
    """The block, or `$VARIABLE`."""
    action: CallWebhook | SendNotification


def notifications(
    client: SyncPrefectClient, lake: Lake, recipes: Mapping[str, Recipe]
) -> tuple[list[Notification], list[str]]:
    """Keep the blocks of environment variables, and say what is to be told through which block.

    The lines tell what was changed, and what is missing: that alone is not told, everything else is.
    """
    lines = offer_email(client)
    wanted = [(r.build.name, notify) for r in recipes.values() for notify in r.notify]
    urls = {}
    for variable in sorted({notify.url_env for _, notify in wanted if notify.url_env}):
        try:
            block_of_url(os.environ.get(variable, ""))
            urls[variable] = os.environ[variable]
        except ConfigError as error:
            found = "" if variable in os.environ else ", which is not set where 'gristmill up' runs"
            lines.append(f"notify: environment variable {variable}{found}: {error}")
    names, changes = keep_blocks(client, lake, urls)
    blocks = named_blocks(client)
    told = []
    for corpus, notify in wanted:
        name = names.get(notify.url_env, notify.block)
        if name in blocks and _sends(blocks[name]):
            told += _notifications(corpus, lake, notify, blocks[name])
        elif name in blocks:
            lines.append(
                f"notify: block {name}: expected one that sends, such as webhook, email or slack-webhook"
            )
        elif notify.block:
            kind = name.partition("/")[0]
            lines.append(
                f"notify: no block {name} yet; make it at {_ui()}/v2/blocks/catalog/{kind}/create"
            )
    return told, [*lines, *changes]


def _sends(block: dict[str, Any]) -> bool:
    is_webhook = block["block_type"]["slug"] == "webhook"
    return is_webhook or "notify" in block["block_schema"]["capabilities"]


def _notifications(
    corpus: str, lake: Lake, notify: NotifyConfig, block: dict[str, Any]
) -> Iterator[Notification]:
    teller = notify.block or f"${notify.url_env}"
    for occasion in notify.on:
        news = _NEWS[occasion]
        if block["block_type"]["slug"] == "webhook":
            action = CallWebhook(block_document_id=block["id"], payload=_document(occasion, news))
        else:
            body = f"{news.body}\n\n{_ui()}/v2/dashboard\nLake: {lake.url}\n"
            action = SendNotification(
                block_document_id=block["id"], subject=news.subject, body=body
            )
        yield Notification(corpus, occasion, news.event, teller, action)


def _document(occasion: str, news: _News) -> str:
    """A template of JSON; `text` is what Slack, Mattermost and their like show."""
    return (
        f"{{% set subject %}}{news.subject}{{% endset %}}{{% set body %}}{news.body}{{% endset %}}"
        '{"text": {{ (subject ~ "\\n" ~ body) | tojson }}, '
        f'"occasion": "{occasion}", "url": "{_ui()}/v2/dashboard", '
        '"event": {{ event.event | tojson }}, "id": {{ event.id | string | tojson }}, '
        '"payload": {{ event.payload | tojson }}}'
    )


def _ui() -> str:
    return str(PREFECT_UI_URL.value() or PREFECT_API_URL.value() or "").removesuffix("/api")
