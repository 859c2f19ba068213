"""The Email block against a real mail server: what arrives, when it is TLS, and that a password stays secret."""

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from storage.errors import ConfigError

from .listeners import mail_server

# Prefect, which only marked files may load, is imported inside.
pytestmark = pytest.mark.prefect


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate for localhost that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context


def notify(url: str, body: str = "text", subject: str | None = None) -> None:
    from flows.blocks import Email

    asyncio.run(Email(url=url).notify(body, subject))  # pyright: ignore[reportArgumentType]


def test_mail_arrives_as_it_was_written() -> None:
    """All receivers, subject in one line, text of any language."""
    with mail_server() as server:
        url = f"smtp://127.0.0.1:{server.port}/?to=a@x.org,b@x.org&from=mill@x.org"
        notify(url, "Gr\u00fc\u00dfe\nzweite Zeile", "tiny@3:\r\nBcc: all@x.org")
    [mail] = server.mails
    assert server.receivers == ["a@x.org", "b@x.org"]
    assert mail["From"] == "mill@x.org"
    assert mail["To"] == "a@x.org, b@x.org"
    assert mail["Subject"] == "tiny@3: Bcc: all@x.org"
    assert mail["Bcc"] is None
    assert mail.get_content().splitlines() == ["Gr\u00fc\u00dfe", "zweite Zeile"]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_password_goes_through_tls_alone(scheme: str, certificate: ssl.SSLContext) -> None:
    """By STARTTLS or from the start; escaped characters in it are meant as themselves."""
    with mail_server(certificate, from_the_start=scheme == "smtps") as server:
        notify(f"{scheme}://me%40x.org:p%40ss%2F1@localhost:{server.port}/?to=a@x.org")
    assert server.logins == [("me@x.org", "p@ss/1")]
    assert server.mails[0]["From"] == "me@x.org"
    assert all(line.split()[0].upper() in (b"EHLO", b"STARTTLS") for line in server.in_the_clear)


def test_without_tls_a_password_is_not_sent() -> None:
    """A server without STARTTLS gets no login and no mail."""
    from prefect.blocks.abstract import NotificationError

    with mail_server() as server, pytest.raises(NotificationError) as refused:
        notify(f"smtp://me:secret@127.0.0.1:{server.port}/?to=a@x.org")
    assert (server.logins, server.mails) == ([], [])
    assert "STARTTLS" in str(refused.value.log)
    assert "secret" not in repr(refused.value.log)


def test_a_certificate_of_another_host_is_refused(certificate: ssl.SSLContext) -> None:
    """127.0.0.1 is not localhost."""
    from prefect.blocks.abstract import NotificationError

    with mail_server(certificate) as server, pytest.raises(NotificationError) as refused:
        notify(f"smtp://me:secret@127.0.0.1:{server.port}/?to=a@x.org")
    assert "certificate" in str(refused.value.log).lower()
    assert server.logins == []


@pytest.mark.parametrize(
    ("query", "says"), [("to=a@x.org,nobody@x.org", "nobody@x.org"), ("to=nobody@x.org", "nobody")]
)
def test_a_refused_receiver_is_an_error(query: str, says: str) -> None:
    """Also if another one got it: a notification that half failed is shown as failed."""
    from prefect.blocks.abstract import NotificationError

    with mail_server() as server, pytest.raises(NotificationError) as refused:
        notify(f"smtp://127.0.0.1:{server.port}/?{query}")
    assert says in str(refused.value.log)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ops",
        "ftp://me:secret@x.org",
        "https://",
        "smtp://me:secret@x.org",
        "smtp://me:secret@x.org/?to=nobody",
        "smtp://me:secret@x.org:port/?to=a@x.org",
        "smtp://me:secret@[::1/?to=a@x.org",
        "smtp:///?to=a@x.org",
    ],
)
def test_what_is_no_address_is_refused_and_not_shown(url: str) -> None:
    """In an environment variable as in a block's form."""
    from flows.blocks import Email, block_of_url

    with pytest.raises(ConfigError, match="expected https://") as refused:
        block_of_url(url)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="expected smtp://") as invalid:
        Email(url=url)  # pyright: ignore[reportArgumentType]
    assert "secret" not in str(invalid.value)


def test_urls_choose_the_block() -> None:
    """And neither block shows its URL."""
    from flows.blocks import Email, block_of_url

    mail: Any = block_of_url("smtps://me:secret@x.org/?to=a@x.org")
    hook: Any = block_of_url("https://x.org/secret")
    assert isinstance(mail, Email)
    assert "secret" not in repr(mail)
    assert "secret" not in repr(hook)
    assert hook.headers.get_secret_value() == {"Content-Type": "application/json"}
