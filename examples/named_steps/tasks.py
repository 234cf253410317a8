"""A workflow of named steps: what a shop does every night."""

from amqtask import App

app = App("shop", backend="rpc://", default_queue="nights")


@app.task
def orders() -> list[int]:
    return [30, 12, 7]


@app.task
def rates() -> float:
    return 0.5


@app.task
def total(orders: list[int]) -> int:
    return sum(orders)


@app.task
def convert(orders: list[int], rates: float) -> list[float]:
    return [each * rates for each in orders]


@app.task
def report(title: str, total: int, converted: list[float]) -> str:
    return f"{title}: {total} in all, {converted} each"


nightly = app.workflow("nightly")
nightly.step("orders", orders.s())
nightly.step("rates", rates.s())
nightly.step("total", total.s(), after="orders")
nightly.step("converted", convert.s(), after=("orders", "rates"))
nightly.step("report", report.s("night"), after=("total", "converted"))
