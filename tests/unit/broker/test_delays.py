"""The delay levels of amqtask on the embedded broker, with time that is advanced."""

from __future__ import annotations

import pytest
from pamqp import commands

from amqtask.broker import Broker
from amqtask.topology.delay import delay_binding, delay_plan, delay_route
from amqtask.topology.plan import BindExchange, BindQueue, DeclareExchange, DeclareQueue, Plan
from tests.unit.broker.client import Client


def _carry_out(client: Client, plan: Plan) -> None:
    for step in plan.steps:
        match step:
            case DeclareExchange():
                client.call(
                    commands.Exchange.Declare(
                        exchange=step.name,
                        exchange_type=step.type,
                        durable=True,
                        arguments=dict(step.arguments),
                    ),
                    commands.Exchange.DeclareOk,
                )
            case DeclareQueue():
                client.declare(step.name, dict(step.arguments))
            case BindQueue():
                client.call(
                    commands.Queue.Bind(
                        queue=step.queue, exchange=step.exchange, routing_key=step.routing_key
                    ),
                    commands.Queue.BindOk,
                )
            case BindExchange():
                client.call(
                    commands.Exchange.Bind(
                        destination=step.destination,
                        source=step.source,
                        routing_key=step.routing_key,
                    ),
                    commands.Exchange.BindOk,
                )


@pytest.mark.parametrize("seconds", [0.05, 1, 3600, 86_400 * 365, 1234567.85])
def test_arrives_when_its_time_comes_and_not_before(broker: Broker, client, seconds):
    client.declare("email", {"x-queue-type": "quorum"})
    _carry_out(client, delay_plan("d"))
    _carry_out(client, delay_binding("email", "d"))
    route = delay_route(seconds, "email", "d")
    assert route is not None
    exchange, key = route
    client.publish(key, "late", exchange=exchange, mandatory=True)
    # less than a tick early
    broker.advance(seconds - 0.04)
    assert client.count("email") == 0
    broker.advance(0.1)
    _, properties, text = client.get("email")
    assert text == "late"
    passed = [digit for digit in key.split(".")[:-1] if digit != "0"]
    assert len(properties.headers["x-death"]) == len(passed)
