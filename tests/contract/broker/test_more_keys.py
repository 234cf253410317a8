"""CC and BCC: headers that name further routing keys, the second ones unseen by who gets them."""

from __future__ import annotations

import pika.exceptions
import pytest

from tests.contract.broker.clients import channel_closed, deaths, drain, fetch, publish, refusal
from tests.contract.broker.differences import CC_AFTER_DEATH


@pytest.fixture
def queues(channel, names):
    """Three queues."""
    made = [names.queue(word) for word in ("a", "b", "c")]
    for name in made:
        channel.queue_declare(name, durable=True)
    return made


def test_each_key_is_a_way(channel, queues):
    """The message is one of its first key, wherever it went; only CC is there to read."""
    a, b, c = queues
    publish(channel, a, b"x", headers={"CC": [b], "BCC": [c], "h": 1})
    for queue in queues:
        found = fetch(channel, queue)
        assert found.method.routing_key == a
        assert found.headers == {"CC": [b], "h": 1}
        assert drain(channel, queue) == []


def test_a_queue_gets_it_once(channel, queues):
    """However many keys lead there."""
    a, b, _ = queues
    publish(channel, a, "x", headers={"CC": [a, b, b], "BCC": [a, b]})
    assert (drain(channel, a), drain(channel, b)) == (["x"], ["x"])


@pytest.mark.parametrize(("kind", "bound"), [("direct", "wanted"), ("topic", "want.#")])
def test_keys_of_an_exchange(channel, queues, names, kind, bound):
    """Bindings are asked for every key."""
    exchange, key = names.exchange(), bound.replace(".#", ".ed")
    channel.exchange_declare(exchange, kind)
    channel.queue_bind(queues[0], exchange, bound)
    publish(channel, "other", "one", exchange=exchange, headers={"CC": [key]})
    publish(channel, "other", "two", exchange=exchange, headers={"BCC": ["x", key]})
    publish(channel, "other", "none", exchange=exchange, headers={"CC": ["x"]})
    assert drain(channel, queues[0]) == ["one", "two"]


def test_mandatory_comes_back_when_no_key_leads_anywhere(channel, queues, names):
    headers = {"CC": [names.queue("nosuch"), queues[0]]}
    publish(channel, "nosuch", "taken", headers=headers, mandatory=True)
    assert drain(channel, queues[0]) == ["taken"]
    with pytest.raises(pika.exceptions.UnroutableError) as caught:
        publish(channel, "nosuch", headers={"CC": [names.queue("none")]}, mandatory=True)
    (returned,) = caught.value.messages
    assert returned.method.routing_key == "nosuch"


def test_no_key_at_all(channel, queues):
    """An empty list adds nothing."""
    publish(channel, queues[0], "x", headers={"CC": [], "BCC": []})
    assert fetch(channel, queues[0]).headers == {"CC": []}


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_what_is_no_list_is_refused(channel, queues, header):
    assert refusal(publish, channel, queues[0], headers={header: queues[1]}) == channel_closed(
        406,
        f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{header}",longstr}}',
    )


@pytest.mark.parametrize("key", [None, "given"])
def test_dead_letters_keep_them_unless_a_key_is_given(channel, queues, names, key, contract_broker):
    """The history names the keys that could be seen, and the message goes on by all of its keys."""
    a, b, c = queues
    exchange, source = names.exchange(), names.queue("source")
    channel.exchange_declare(exchange, "direct")
    for queue, bound in ((a, source), (b, "cc"), (c, key or "bcc")):
        channel.queue_bind(queue, exchange, bound)
    arguments = {"x-dead-letter-exchange": exchange}
    if key is not None:
        arguments["x-dead-letter-routing-key"] = key
    channel.queue_declare(source, durable=True, arguments=arguments)
    publish(channel, source, "x", headers={"CC": ["cc"], "BCC": ["bcc"]})
    method, _, _ = channel.basic_get(source)
    channel.basic_reject(method.delivery_tag, requeue=False)
    dead = fetch(channel, c)
    assert deaths(dead)[0]["routing-keys"] == [source, "cc"]
    assert dead.headers.get("CC") == (
        ["cc"] if key is None else contract_broker.expects(CC_AFTER_DEATH)
    )
    assert (len(drain(channel, a)), len(drain(channel, b))) == ((1, 1) if key is None else (0, 0))
