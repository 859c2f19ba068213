"""Personal data: e-mail addresses, public IP addresses, phone and card numbers, keys and passwords become placeholders.

Every pattern is linear in the text: quantifiers are bounded and each match can begin only at one place of a run, so
hostile text cannot make one backtrack. What looks like a card or an address must also pass its checksum or parser.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import ConfigError

KINDS = ("secret", "email", "card", "ip", "phone")
"""Kinds of personal data, in the order in which they are replaced; the placeholder of "email" is <EMAIL>."""


@dataclass(frozen=True, kw_only=True)
class PiiConfig:
    """Redaction of personal data and credentials."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    enabled: bool = True
    """Whether texts are searched at all."""
    kinds: tuple[str, ...] = KINDS
    """What is replaced: secret, email, card, ip, phone."""
    no_phone_domains: tuple[str, ...] = ("code",)
    """Domains where digits with dashes and dots are no phone numbers (versions, tables, arithmetic)."""

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ConfigError(
                f"pii.kinds: expected some of {', '.join(KINDS)}, got {', '.join(map(repr, unknown))}"
            )
        if self.enabled and not self.kinds:
            raise ConfigError("pii.kinds: nothing to replace; set pii.enabled = false instead")


def redact_pii(batch: pa.RecordBatch, config: PiiConfig, stats: Counter[str]) -> pa.RecordBatch:
    """The batch with personal data replaced and `num_bytes` recounted; `stats` gains the count of each kind."""
    if not config.enabled:
        return batch
    texts: list[str] = []
    for text, domain in zip(batch["text"], batch["domain"].to_pylist(), strict=True):
        kinds = [k for k in config.kinds if k != "phone" or domain not in config.no_phone_domains]
        redacted, found = redact(text.as_py(), kinds)
        texts.append(redacted)
        stats.update(found)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["text"] = pa.array(texts, pa.string())
    columns["num_bytes"] = pc.cast(pc.binary_length(columns["text"]), pa.int64())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def redact(text: str, kinds: tuple[str, ...] | list[str] = KINDS) -> tuple[str, Counter[str]]:
    """The text with each piece of personal data replaced by its placeholder, and how many of each kind there were."""
    found: Counter[str] = Counter()
    for kind in KINDS:
        if kind in kinds:
            text = _REPLACERS[kind](text, found)
    return text, found


def _replace(
    kind: str, pattern: re.Pattern[str], accept: Callable[[re.Match[str]], bool] | None = None
) -> Callable[[str, Counter[str]], str]:
    """A function that replaces the accepted matches of a pattern and counts them."""
    placeholder = f"<{kind.upper()}>"

    def replace(text: str, found: Counter[str]) -> str:
        def substitute(match: re.Match[str]) -> str:
            if accept is not None and not accept(match):
                return match.group()
            found[kind] += 1
            prefix = match.groupdict().get("keep") or ""
            return prefix + placeholder

        return pattern.sub(substitute, text)

    return replace


# An address's parts are bounded by RFC 5321, 4.5.3.1: 64 characters before the @, 63 a label of the domain.
_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,6}[A-Za-z]{2,24}(?![\w@-])"
)

_IPV4 = re.compile(r"(?<![\w.:/-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")

_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){11,18}(?![\w-]|[.,]\d)")

_PHONE = re.compile(
    r"(?<![\w.,/+=-])(?P<number>(?:\+|\(|00)?\d(?:[ .()/-]{0,2}\d){5,14})(?:\s?(?:x|ext\.?)\s?\d{1,5})?(?![\w/-]|[.,]\d)"
)
_PHONE_STRONG = re.compile(
    r"\+\d[\d ().-]{7,20}"  # international
    r"|(?:1[ .-])?\(?[2-9]\d\d\)?[ .-][2-9]\d\d[.-]\d{4}"  # North America
    r"|0\d{1,4}([ .-])\d{2,4}(?:\1\d{2,4}){1,4}"  # national, with a trunk prefix
)
_PHONE_CONTEXT = re.compile(
    r"phone|\btel\b|\bcell|mobile|\bcall(?:ed|ing)?\b|\bfax\b|whatsapp|\bsms\b|\btext me|reach (?:me|us)|\bdial",
    re.IGNORECASE,
)
_CONTEXT_CHARS = 40

_SECRETS = re.compile(
    r"-----BEGIN (?P<type>[A-Z ]{0,30}PRIVATE KEY)-----[A-Za-z0-9+/=\s:,-]{1,20000}-----END (?P=type)-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS access key id
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b"
    r"|\bglpat-[A-Za-z0-9_-]{20,64}\b"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,255}\b"  # Slack
    r"|\bAIza[A-Za-z0-9_-]{35}\b"  # Google
    r"|\b[rs]k_live_[A-Za-z0-9]{16,255}\b"  # Stripe
    r"|\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,255}\b"  # OpenAI, Anthropic
    r"|\bhf_[A-Za-z0-9]{30,64}\b|\bnpm_[A-Za-z0-9]{36}\b|\bpypi-[A-Za-z0-9_-]{50,255}\b"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}\b"  # JSON web token
    r"|(?P<keep>\b[a-z][a-z0-9+.-]{1,20}://[^\s:@/]{1,64}:)[^\s:@/]{3,128}(?=@)"  # password in a URL
)


def _is_public_ipv4(match: re.Match[str]) -> bool:
    """A public address that is not a version number: those are made of small numbers (2.6.12.1)."""
    try:
        address = ipaddress.IPv4Address(match.group())
    except ValueError:
        return False
    return address.is_global and max(address.packed) >= 20


def _is_public_ipv6(match: re.Match[str]) -> bool:
    """An address of 2000::/3, the only block given out for public use (RFC 4291, 2.4)."""
    try:
        return int(ipaddress.IPv6Address(match.group())) >> 125 == 1
    except ValueError:
        return False


_CARD_PREFIXES = re.compile(
    r"4(?=\d{12}(?:\d{3}){0,2}$)"  # Visa: 13, 16, 19 digits
    r"|(?:5[1-5]|2[2-7])(?=\d{14}$)"  # Mastercard: 16
    r"|3[47](?=\d{13}$)"  # American Express: 15
    r"|3(?:0[0-5]|[689])(?=\d{11,13}$)"  # Diners: 14
    r"|6(?:011|4[4-9]|5)(?=\d{12,16}$)"  # Discover: 16 to 19
    r"|35(?=\d{14}$)|(?:2131|1800)(?=\d{11}$)"  # JCB: 16, and 15
    r"|(?:5[0678]|6\d)(?=\d{10,17}$)"  # Maestro: 12 to 19
    r"|62(?=\d{14,17}$)"  # UnionPay: 16 to 19
)


def _is_card(match: re.Match[str]) -> bool:
    """Length and first digits of a known issuer (ISO/IEC 7812-1), and Luhn's check digit."""
    digits = match.group().replace(" ", "").replace("-", "")
    return _CARD_PREFIXES.match(digits) is not None and passes_luhn(digits)


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) << (place & 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_phone(match: re.Match[str]) -> bool:
    """A form that only phone numbers have, or any plausible one shortly after a word about phones."""
    number = match.group("number")
    num_digits = sum(map(str.isdigit, number))
    if not 6 <= num_digits <= 15:
        return False
    if num_digits >= 9 and _PHONE_STRONG.fullmatch(number):
        return True
    start = match.start()
    return _PHONE_CONTEXT.search(match.string, max(0, start - _CONTEXT_CHARS), start) is not None


_replace_ipv4 = _replace("ip", _IPV4, _is_public_ipv4)
_replace_ipv6 = _replace("ip", _IPV6, _is_public_ipv6)

_REPLACERS: dict[str, Callable[[str, Counter[str]], str]] = {
    "secret": _replace("secret", _SECRETS),
    "email": _replace("email", _EMAIL),
    "card": _replace("card", _CARD, _is_card),
    "ip": lambda text, found: _replace_ipv6(_replace_ipv4(text, found), found),
    "phone": _replace("phone", _PHONE, _is_phone),
}
