"""A task that is called very often."""

from amqtask import App

app = App("shop", backend="rpc://", default_queue="stock")


@app.task
def count(article: int, pieces: int = 1) -> int:
    return pieces
