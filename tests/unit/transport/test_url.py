"""Broker URLs: what is read out of them, what is refused, and what is never shown."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError
from amqtask.transport import BrokerURL


def _parameters(url: str, heartbeat: int = 30):
    return BrokerURL.parse(url).parameters(name="n", heartbeat=heartbeat, timeout=5)


def test_everything_is_read() -> None:
    """Host, port, account, vhost and options come out as they were written, unquoted."""
    url = BrokerURL.parse("amqp://us%40er:p%2Fw%3A@mq.example:5673/pro%2Fd?heartbeat=7")
    assert url == BrokerURL(
        "mq.example", 5673, "us@er", "p/w:", "pro/d", False, (("heartbeat", "7"),)
    )


@pytest.mark.parametrize(
    ("url", "port", "tls"), [("amqp://h", 5672, False), ("amqps://h", 5671, True)]
)
def test_defaults(url: str, port: int, tls: bool) -> None:
    """A bare host means RabbitMQ's own defaults, and the port that goes with TLS."""
    assert BrokerURL.parse(url) == BrokerURL("h", port, "guest", "guest", "/", tls)


@pytest.mark.parametrize(
    ("path", "vhost"), [("", "/"), ("/", "/"), ("/%2F", "/"), ("/v", "v"), ("/a%20b", "a b")]
)
def test_vhost(path: str, vhost: str) -> None:
    """No path is the vhost "/", as most clients read it."""
    assert BrokerURL.parse(f"amqp://h{path}").vhost == vhost


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_any_account_is_carried(user: str, password: str) -> None:
    """Whatever stands in user and password, quoted as URLs have it, reaches the broker."""
    credentials = _parameters(f"amqp://{quote(user, '')}:{quote(password, '')}@h/").credentials
    assert (credentials.username, credentials.password) == (user, password)


@settings(deadline=None)
@given(st.text("0123456789abcdef", min_size=12, max_size=30), st.booleans())
def test_the_password_is_never_shown(password: str, tls: bool) -> None:
    """Neither str nor repr holds it, nor does a message made with them."""
    url = BrokerURL.parse(f"amqp{'s' if tls else ''}://user:{password}@mq.example:5999/v")
    shown = f"{url} {url!r} {[url]}"
    assert password not in shown
    assert str(url) == f"amqp{'s' if tls else ''}://user@mq.example:5999/v"


def test_str_leaves_out_the_root_vhost() -> None:
    """The vhost shows only where it says something."""
    assert str(BrokerURL.parse("amqp://guest:guest@127.0.0.1:5672/")) == (
        "amqp://guest@127.0.0.1:5672"
    )


@pytest.mark.parametrize(
    ("url", "text", "hint"),
    [
        (
            "redis://user:secret@h/0",
            "broker URL has scheme 'redis'",
            "use amqp://user:password@host:port/vhost, or amqps:// for TLS",
        ),
        (
            "localhost:5672",
            "broker URL has scheme 'localhost'",
            "use amqp://user:password@host:port/vhost, or amqps:// for TLS",
        ),
        (
            "amqp://user:secret@mq.example:567x/",
            "broker URL for host 'mq.example' has a port that is no number from 0 to 65535",
            None,
        ),
        (
            "amqp://user:secret@mq.example:70000/",
            "broker URL for host 'mq.example' has a port that is no number from 0 to 65535",
            None,
        ),
        (
            "amqp://user:secret@mq.example/?hartbeat=3",
            (
                "broker URL for host 'mq.example' has unknown option 'hartbeat',"
                " did you mean 'heartbeat'?"
            ),
            "known options: heartbeat, cafile, certfile, keyfile, server_name, verify",
        ),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, text: str, hint: str | None) -> None:
    """A bad URL is an error that names the part and, where there is one, the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        BrokerURL.parse(url)
    assert str(caught.value) == text
    assert caught.value.hint == hint
    assert "secret" not in f"{caught.value} {caught.value.__notes__ if hint else ''}"


@pytest.mark.parametrize("value", ["", "-1", "1.5", "off"])
def test_a_heartbeat_that_is_no_number(value: str) -> None:
    """A heartbeat that cannot be read is an error, not the default."""
    with pytest.raises(ConfigurationError) as caught:
        _parameters(f"amqp://mq.example/?heartbeat={value}")
    assert str(caught.value) == f"broker URL for host 'mq.example' has heartbeat={value!r}"
    assert caught.value.hint == "give whole seconds, or 0 for no heartbeats"


@pytest.mark.parametrize(("query", "seconds"), [("", 30), ("?heartbeat=5", 5), ("?heartbeat=0", 0)])
def test_the_url_decides_on_heartbeats(query: str, seconds: int) -> None:
    """The URL's heartbeat wins over the setting."""
    assert _parameters(f"amqp://h/{query}").heartbeat == seconds


def test_the_connection_is_named() -> None:
    """RabbitMQ's tools show whose connection it is, and one attempt is one attempt."""
    parameters = _parameters("amqp://h/v")
    assert parameters.client_properties["connection_name"] == "n"
    assert (parameters.connection_attempts, parameters.virtual_host) == (1, "v")
    assert parameters.ssl_options is None


# -- TLS --------------------------------------------------------------------------


def test_tls_checks_certificate_and_host() -> None:
    """amqps:// alone is a checked connection."""
    options = _parameters("amqps://mq.example/").ssl_options
    assert options.context.verify_mode is ssl.CERT_REQUIRED
    assert options.context.check_hostname is True
    assert options.server_hostname == "mq.example"


def test_tls_checks_another_name_when_told() -> None:
    """server_name= is what the certificate must say, for brokers reached by address."""
    options = _parameters("amqps://10.0.0.1/?server_name=mq.example").ssl_options
    assert options.server_hostname == "mq.example"


@pytest.mark.parametrize("word", ["0", "false", "no"])
def test_tls_without_checks_only_when_told(word: str) -> None:
    """verify=0 accepts any certificate."""
    context = _parameters(f"amqps://h/?verify={word}").ssl_options.context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("option", ["cafile", "certfile"])
def test_a_certificate_that_is_not_there(option: str, tmp_path: Path) -> None:
    """A missing file is a configuration error that names the host, not a stray OSError."""
    with pytest.raises(ConfigurationError) as caught:
        _parameters(f"amqps://mq.example/?{option}={tmp_path / 'none.pem'}")
    assert str(caught.value) == (
        "broker URL for host 'mq.example' names a certificate that does not load:"
        " [Errno 2] No such file or directory"
    )


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    """So is a file that holds something else."""
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match="names a certificate that does not load: "):
        _parameters(f"amqps://mq.example/?cafile={tmp_path / 'ca.pem'}")


@pytest.mark.parametrize(
    ("url", "vhost", "shown"),
    [
        ("memory://", "/", "memory://"),
        ("memory://Orders", "Orders", "memory://Orders"),
        ("memory://a%20b/", "a b", "memory://a b"),
    ],
)
def test_the_broker_inside_the_process(url: str, vhost: str, shown: str) -> None:
    """Its name is a vhost, and stays as it is written; where it listens is not known yet."""
    parsed = BrokerURL.parse(url)
    assert (parsed.memory, parsed.vhost, str(parsed)) == (True, vhost, shown)


@pytest.mark.parametrize(
    "url", ["memory://name/vhost", "memory://user:secret@name", "memory://x:5672", "memory://?a=1"]
)
def test_the_broker_inside_has_only_a_name(url: str) -> None:
    """No user, port, path or option; a password is not shown."""
    with pytest.raises(ConfigurationError, match="has more than a name") as refused:
        BrokerURL.parse(url)
    assert "secret" not in str(refused.value)
