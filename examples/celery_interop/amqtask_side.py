"""The amqtask side: a queue of its own, and Celery's queue as Celery declares it.

Its worker: amqtask -A amqtask_side worker --queues orders
"""

from amqtask import App, Queue

app = App(
    "shop",
    broker="amqp://guest:guest@127.0.0.1:5672/",
    backend="rpc://",
    # no arguments, default exchange: whoever declares it first, the other one agrees
    queues=[Queue("legacy", type="classic", exchange="", dead_letter=False)],
    default_queue="orders",
)


@app.task
def invoice(order: int) -> str:
    return f"invoice for order {order}, written by amqtask"
