"""The tasks of a small shop."""

from amqtask import App

app = App("shop", backend="rpc://")


@app.task(queue="email")
def welcome(name: str) -> str:
    return f"Welcome, {name}!"


@app.task(queue="reports", retry_on=[OSError], max_retries=5)
async def total(prices: list[float]) -> float:
    return sum(prices)
