"""Tasks that fail: some for a while, some for good."""

from amqtask import App, Context, Reject, RetryPolicy, current_task

app = App("billing", backend="rpc://", default_queue="billing")

BANK = RetryPolicy(on=(ConnectionError,), max_retries=3, backoff=0.1)


@app.task(retry=BANK)
def charge(order: int, busy: int) -> str:
    if current_task.attempt <= busy:
        raise ConnectionError("the bank is busy")
    return f"order {order} is paid, in attempt {current_task.attempt}"


@app.task(bind=True, max_retries=5)
def refund(context: Context, order: int) -> str:
    if context.attempt == 1:
        context.retry("not booked yet", countdown=0.2)
    return f"order {order} is refunded, in attempt {context.attempt}"


@app.task
def close(order: int) -> None:
    if order < 0:
        raise Reject("there is no such order")
    raise ValueError(f"order {order} is still open")
