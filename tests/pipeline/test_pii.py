"""Personal data: what is found, what is left alone, and that no text makes the search slow."""

import time
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pii import KINDS, PiiConfig, find_pii, passes_luhn, redact, redact_pii
from storage.errors import ConfigError

FOUND = {
    "email": [
        "Write to <ada.lovelace+sums@example.co.uk>, please.",
        "mailto:x@y-z.museum",
        "contact:first_last@sub.domain.example.org.",
    ],
    "ip": [
        "The gate computer is 203.0.113.77.",
        "ping 8.154.23.66:1337",
        "from [2001:db8::8a2e:370:7334] port 22",
    ],
    "phone": [
        "If the water is off, call 202-555-0143 and let it ring.",
        "+44 1632 960983",
        "(202) 555-0188 x4587",
        "Mobile: 03.93.92.16.85",
        "Tel 467 3395",
        "0490 75 40 81, evenings",
        "21 253 109 8211-Office",
    ],
    "card": [
        "paid with 4111 1111 1111 1111 yesterday",
        "5555-5555-5555-4444",
        "card 378282246310005.",
        "6304000000000000",
    ],
    "secret": [
        "aws_key = AKIAIOSFODNN7EXAMPLE",
        "password=hunter2-example",
        'client_secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
        "The wifi password is correct4horse.",
        "set token = 'user_pass1'; go",
        "token: ghp_" + "0123456789abcdef" * 2,
        "export X=ghp_" + "0123456789abcdefghij" * 2,
        "postgres://admin:s3cret@db.example.com/main",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE+a/9==\n-----END RSA PRIVATE KEY-----",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    ],
}

LEFT_ALONE = [
    "y = X @ self.W.T + b  # user@localhost",
    "import numpy as np  # @pytest.mark.slow",
    "127.0.0.1, 10.0.0.7, 192.168.1.20 and 255.255.255.0",
    "Linux 2.6.15.23, firmware 2.3.1.31, section 12.1.3.2",
    "std::vector<int> a::b 10:20:30 dead:beef",
    "In 1914-1918 and 1939-1945, some 12 000 000 people",
    "0.30000000000000004 and 3.141592653589793",
    "ISBN 978-3-16-148410-0, doi:10.1371/journal.pbio.0020188",
    "4111 1111 1111 1112",
    "call 1998-2003 on 2006-05-02",
    "stained with Hoechst 33342 (3.0 ug/ml)",
    "00 01 02 03 04 05 06 07 08 09 0a",
    "the secret: nobody knows. The token is everything; a password = getpass()",
    "if token == 'identifier': pass",
    "token = tokens_2[0]; password = config.password2; api_key=self.key1.value",
    "y = A@B.dot(x) + C@D.real[0]",
    "4 0 1 2 8 8 8 8 8 8 8 8 1 8 8 1",
    "sk-learn-contrib and hf_hub_download and https://example.org:8080/a@b",
    "The year is 2026. Room 4111, 555-0199 degrees.",
]


@pytest.mark.parametrize(
    "text",
    [
        "git clone git@github.com:x/y.git", "hg@bitbucket.org", "ssh://bob@host.example.org/x",
        "https://bob@host.example.org/", "scp a.txt bob@host.example.org:/tmp/", "bob@host.example.org:work/x.git",
        "bob@host.example.org:x.git", "bob@web1.example.org:~$ ls", "[root@web1.example.org ~]# ls",
        "root@web1.example.org# ls", "ssh -p 22 bob@host.example.org uptime", "react@18.2.0-rc.beta",
        "lodash@4.17.21.tgz", "icon@2x.png", "getty@tty1.service", "@app.route", "foo@bar", "y = a@b",
    ],
)  # fmt: skip
def test_logins_packages_and_files_are_no_addresses(text: str) -> None:
    """What has an at sign in it and no mailbox behind it stays."""
    assert redact(text, ("email",)) == (text, Counter())


@pytest.mark.parametrize(
    "text",
    ["mailto:{}", "{}:", "{}: hello", "{}:hunter2", "<{}>", "to {}.", "{}/{}", "{}:http://x.org/", "{} 50% off",
     "{} # boss", "mailto:{}?subject=x", "digit {}", "the ssh key of {}"],
)  # fmt: skip
def test_addresses_beside_such_signs_are_found(text: str) -> None:
    """Colons, slashes and number signs alone make no login of an address."""
    address, mark = "bob@host.example.org", "<EMAIL>"
    assert redact(text.replace("{}", address), ("email",))[0] == text.replace("{}", mark)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in FOUND.items() for t in texts])
def test_personal_data_becomes_its_placeholder(kind: str, text: str) -> None:
    """One of its kind is found, nothing else, and what stands around it stays."""
    redacted, found = redact(text)
    assert found == {kind: 1}
    before, after = redacted.split(f"<{kind.upper()}>")
    assert text.startswith(before)
    assert text.endswith(after)
    assert len(before) + len(after) < len(text)


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    """Versions, matrices, dates, decimals, wrong check digits, variables."""
    assert redact(text) == (text, Counter())


def test_batch_is_rewritten_and_counted() -> None:
    """num_bytes follows the text, code keeps its digits, and stats sum over documents."""
    texts = ["Mail \u00e9a@example.org or call 202-555-0143.", "call 202-555-0143  # a@example.org"]
    batch = pa.record_batch(
        {
            "id": ["0", "1"],
            "text": texts,
            "domain": ["web", "code"],
            "num_bytes": pa.array([0, 0], pa.int64()),
        }
    )
    stats: Counter[str] = Counter(email=1)
    redacted = redact_pii(batch, PiiConfig(), stats)
    assert redacted.schema == batch.schema
    assert redacted["text"].to_pylist() == [
        "Mail <EMAIL> or call <PHONE>.",
        "call 202-555-0143  # <EMAIL>",
    ]
    assert redacted["num_bytes"].to_pylist() == [
        len(t.encode()) for t in redacted["text"].to_pylist()
    ]
    assert stats == {"email": 3, "phone": 1}
    assert redact_pii(batch, PiiConfig(enabled=False), stats).equals(batch)


def test_config_says_what_is_wrong() -> None:
    """An unknown kind is named; to look for nothing is to be said so."""
    with pytest.raises(ConfigError, match=r"pii\.kinds.*got 'name'"):
        PiiConfig(kinds=("email", "name"))
    with pytest.raises(ConfigError, match=r"enabled = false"):
        PiiConfig(kinds=())
    assert redact("a@example.org 203.0.113.77", PiiConfig(kinds=("ip",)).kinds)[1] == {"ip": 1}


@given(st.lists(st.sampled_from([t for texts in FOUND.values() for t in texts] + LEFT_ALONE)))
def test_redacting_twice_is_redacting_once(texts: list[str]) -> None:
    """Placeholders are nobody's data, whatever they stand beside."""
    redacted, _ = redact("\n".join(texts))
    assert redact(redacted) == (redacted, Counter())


@given(st.text(st.sampled_from("a1@.:+-() =/_\n\u00e9"), max_size=120))
def test_spans_lie_in_order_and_apart(text: str) -> None:
    """Any text is taken apart without overlap, and put together again."""
    found = find_pii(text)
    ends = [end for _, end, _ in found]
    assert all(start < end for start, end, _ in found)
    assert all(end <= start for end, (start, _, _) in zip(ends, found[1:], strict=False))
    redacted, counts = redact(text)
    assert counts.total() == len(found)
    removed = sum(end - start - len(f"<{kind}>") for start, end, kind in found)
    assert len(redacted) == len(text) - removed


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_luhn_sees_every_single_wrong_digit(digits: list[int], data: st.DataObject) -> None:
    """Exactly one check digit fits, and any one changed digit is noticed."""
    number = "".join(map(str, digits))
    fitting = [c for c in "0123456789" if passes_luhn(number + c)]
    assert len(fitting) == 1
    place = data.draw(st.integers(0, len(number) - 1))
    changed = data.draw(st.sampled_from([c for c in "0123456789" if c != number[place]]))
    assert not passes_luhn(number[:place] + changed + number[place + 1 :] + fitting[0])


@pytest.mark.parametrize(
    "unit",
    [
        "a", "1", "@", "a@", "a@a.", "x@a.b-", "1.", "1 ", "00 ", "1-", "(1", "+1", ")(", "::", "2001:", "8.8.", "=",
        "password=", "password: a1", " is a1", "eyJaaaaaaaaaaaa.", "://a:", "a:b@", "sk-", "ghp_", "call 1",
        "-----BEGIN PRIVATE KEY-----", "4111111111111111 ",
    ],
)  # fmt: skip
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """A megabyte made to mislead the patterns is searched within a second or so of one core."""
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    find_pii(text, KINDS)
    assert time.process_time() - start < 2
