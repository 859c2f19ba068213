"""Credentials out of text that people and logs get to see: errors, notes, states. The one place that knows their forms.

What is asked of it is caution, not precision: a part of a URL too much under `***` does no harm.
"""

import os
import re
import urllib.parse

HIDDEN = "***"
"""Stands for what is not shown."""

# A user's name and password, or a token in their place, before a host. An AWS key has "/" and "+" in it, and people
# write "@" in passwords as it is: so behind a colon that no port follows, up to the last @ there is. Our own messages
# say user:password@ where they explain a form.
_USER = re.compile(
    r"""(?<=://)(?!user:password@)(?:[^\s/?#@:'"<>]*:(?!\d{1,5}(?:[/?#\s'"<>]|$))[^\s'"<>]*|[^\s/?#'"<>]*)@"""
)
_ASSIGNED = re.compile(
    r"""([\w.-]*(?:key|token|sig(?:nature)?|secret|pass(?:wd|word|phrase)?|pwd|credentials?|auth|code|jwt|hmac)[\w.-]*"""
    r"""(?:=|%3D))[^\s&#'"<>,;)]*[^\s&#'"<>,;):]""",
    re.IGNORECASE,
)
_QUERY = re.compile(r"[?&#][^\s'\"<>]*")
_KNOWN_FORMS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS access keys
    r"|(?<=Bearer )[\w.~+/=-]{8,}|(?<=Basic )[A-Za-z0-9+/=]{8,}"
    r"|(?<=<AWSAccessKeyId>)[^<]+|(?<=<StringToSign>)[^<]+|(?<=<SignatureProvided>)[^<]+"
)
_SECRET_VARIABLE = re.compile(
    r"SECRET|PASSWORD|PASSWD|TOKEN|AUTH_STRING|ACCESS_KEY|API_KEY|ACCOUNT_KEY|CREDENTIALS?$"
)
_SHORTEST = 8
"""Values of environment variables that are shorter than this stand in ordinary words."""


def without_secrets(text: str) -> str:
    """The text with `***` for what gives access: users and passwords in URLs, signatures and tokens in their queries,
    keys of known form, and the values of environment variables that are named like a secret."""
    if "://" in text:
        text = _USER.sub(f"{HIDDEN}@", text)
    if "=" in text or "%3D" in text:
        text = _QUERY.sub(lambda query: _ASSIGNED.sub(rf"\g<1>{HIDDEN}", query[0]), text)
    text = _KNOWN_FORMS.sub(HIDDEN, text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_VARIABLE.search(name):
            for form in (value, urllib.parse.quote(value, safe="")):
                text = text.replace(form, HIDDEN)
    return text
