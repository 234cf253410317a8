"""What dying leaves in a message's headers."""

from __future__ import annotations

from amqtask.broker.message import Message


def _message(**values) -> Message:
    return Message("ex", ("key",), b"\x00\x00", b"body", **values)


def _die(message: Message, queue: str, reason, **values) -> Message:
    values = {"exchange": "dlx", "key": None, "wall": 1000.0, **values}
    return message.died(queue, reason, **values)


def _deaths(message: Message) -> list[dict[str, object]]:
    return [
        {name: field.value for name, field in each.value.items()}
        for each in message.headers()["x-death"].value
    ]


def test_the_first_death():
    died = _die(_message(ttl=50), "q", "expired")
    assert died.exchange == "dlx"
    assert died.ttl is None
    (death,) = _deaths(died)
    keys = death.pop("routing-keys")
    assert [each.value for each in keys] == ["key"]  # type: ignore[attr-defined]
    assert death == {
        "original-expiration": "50",
        "count": 1,
        "reason": "expired",
        "queue": "q",
        "time": 1000,
        "exchange": "ex",
    }
    headers = {name: field.value for name, field in died.headers().items()}
    assert headers["x-first-death-queue"] == headers["x-last-death-queue"] == "q"


def test_the_same_death_again_is_counted_and_comes_first():
    once = _die(_message(), "a", "expired")
    twice = _die(_die(once, "b", "rejected"), "a", "expired", wall=2000.0)
    assert [(each["queue"], each["count"]) for each in _deaths(twice)] == [("a", 2), ("b", 1)]
    assert _deaths(twice)[0]["time"] == 1000
    assert twice.headers()["x-first-death-queue"].value == "a"
    assert twice.headers()["x-last-death-exchange"].value == "dlx"


def test_another_key_may_be_given():
    assert _die(_message(), "q", "rejected", key="other").keys == ("other",)


def test_a_circle_without_a_rejection_is_one():
    message = _die(_die(_message(), "a", "expired"), "b", "expired")
    assert message.cycles_in("a")
    assert not message.cycles_in("c")
    assert not _die(message, "b", "rejected").cycles_in("a")


def test_hidden_keys_are_not_told():
    message = _message()
    message.keys, message.hidden = ("key", "bcc"), ("bcc",)
    (death,) = _deaths(_die(message, "q", "rejected"))
    assert [each.value for each in death["routing-keys"]] == ["key"]  # type: ignore[attr-defined]
