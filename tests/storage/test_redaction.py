"""Credentials stay out of messages, whatever form they come in; everything else stays."""

import pickle

import pytest

from storage.errors import ConfigError, LakeError, SourceGoneError
from storage.lake import Lake
from storage.redaction import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://me:pw@host:9/x failed", "GET http://***@host:9/x failed"),
        ("s3://AKEY:sec/r+et@bucket/prefix: no", "s3://***@bucket/prefix: no"),
        ("https://me:p@ss@host/", "https://***@host/"),
        ("https://ghp_16C7e42F@github.com/x/y", "https://***@github.com/x/y"),
        ("https://h/x?a=1&token=tt&b=2", "https://h/x?a=1&token=***&b=2"),
        ("(https://h/x?sv=1&sig=a%2Bb%3D)", "(https://h/x?sv=1&sig=***)"),
        ("x?X-Amz-Credential=AK%2F1&X-Amz-Date=2&X-Amz-Signature=ff: no",
         "x?X-Amz-Credential=***&X-Amz-Date=2&X-Amz-Signature=***: no"),
        ("https://h/#access_token=tt", "https://h/#access_token=***"),
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "key *** is unknown"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer ***"),
    ],
)  # fmt: skip
def test_secrets_go(text: str, shown: str) -> None:
    """In the user part and the query of a URL, and by their form."""
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/a@b",
        "https://host/picture@2x.png",
        "expected postgresql+asyncpg://user:password@host/name",
        "--set dedup.threshold=0.8: did you mean it?",
        "mail.jsonl:3: a@example.org",
        "s3://bucket/prefix",
    ],
)
def test_nothing_else_goes(text: str) -> None:
    """Ports, paths and our own explanations stay."""
    assert without_secrets(text) == text


def test_values_of_secret_variables_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as a URL would hold them."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def+ghi")
    assert without_secrets("got abc/def+ghi and abc%2Fdef%2Bghi") == "got *** and ***"


def test_no_error_of_ours_has_them() -> None:
    """Whoever raises it, and after it went to another process."""
    error = SourceGoneError("https://me:pw@host/x is gone", "web")
    assert str(pickle.loads(pickle.dumps(error))) == "https://***@host/x is gone"
    with pytest.raises(ConfigError) as refused:
        Lake.open("s3://key:secret@bucket/x?sig=abc")
    assert "secret" not in str(refused.value) and "abc" not in str(refused.value)


def test_an_endpoint_with_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore repeats it; neither the message nor a traceback does."""
    for name, value in (
        ("AWS_ENDPOINT_URL", "http://me:s3cr3t@127.0.0.1:notaport/"),
        ("AWS_ACCESS_KEY_ID", "me"),
        ("AWS_REGION", "here"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(LakeError) as failed:
        Lake.open("s3://bucket/x").list_folders("corpora")
    causes, error = [], failed.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert not [cause for cause in causes if "s3cr3t" in cause]
