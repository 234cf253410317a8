"""Tasks for the asyncio client: an async one, and a plain one beside it."""

import asyncio

from amqtask import App

app = App("numbers", backend="rpc://", default_queue="numbers")


@app.task
async def square(number: int) -> int:
    await asyncio.sleep(0.1)
    return number * number


@app.task
def divide(one: int, other: int) -> float:
    return one / other
