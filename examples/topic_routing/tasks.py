"""One task whose calls go to different queues, by topic."""

from amqtask import App, Queue, current_task

app = App(
    "orders",
    backend="rpc://",
    queues=[
        Queue("europe", bindings=("order.eu.#",)),
        Queue("world", bindings=("order.us.#", "order.asia.#")),
    ],
    default_queue="world",
    # by name, for tasks that say nothing themselves; the first rule that matches decides
    routes=[("*.audit", "europe")],
)


@app.task
def handle(order: int) -> str:
    return f"order {order}: {current_task.routing_key} came by {current_task.queue}"


@app.task
def audit(order: int) -> str:
    return f"order {order}: {current_task.routing_key} came by {current_task.queue}"
