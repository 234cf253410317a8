"""How large the messages of a long chain are: ``python -m tests.bench.chain``.

It sends nothing: it runs the decisions of client and workers from the first step to the last, and
encodes each message as it would be published.
"""

from __future__ import annotations

import sys
import time

from amqtask import App
from amqtask.message import Message, decode
from amqtask.message.serializers import accepted
from amqtask.message.signature import Chain, Node
from amqtask.workflow.advance import succeeded
from amqtask.workflow.client import freeze_here
from amqtask.workflow.launch import Launch, launch
from amqtask.workflow.outgoing import prepare


def main(steps: int) -> None:
    """Print the sizes of the messages of a chain of so many steps."""
    app = App("bench", backend="rpc://", environ={})

    @app.task(name="shop.tasks.add")
    def add(a: int, b: int) -> int:
        return a + b

    node: Node = Chain((add.s(1, 2)._node, *(add.s(n)._node for n in range(steps - 1))))
    began = time.process_time()
    begins = launch(freeze_here(app, node))
    built = time.process_time() - began
    sizes = []
    began = time.process_time()
    while begins:
        message = _message(app, begins)
        sizes.append(len(message.body))
        call = decode(message, accepted(("json",)), max_decoded_size=1 << 30)
        begins = succeeded(call, 1).launch
    spent = time.process_time() - began
    print(f"{len(sizes)} messages; ids and shape in {built * 1000:.0f} ms")
    print(f"first {sizes[0]} bytes, {sizes[0] / steps:.0f} for each step; last {sizes[-1]} bytes")
    print(
        f"{spent / steps * 1000:.2f} ms of processor time for decoding, deciding and encoding for each step"
    )


def _message(app: App, begins: Launch) -> Message:
    (start,) = begins.starts
    made = prepare(app.sender, app.tasks, start, parent_id=None, reply_to="")
    return made.publications[0].message


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1000)
