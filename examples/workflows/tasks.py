"""The steps of a report: fetch a few numbers, work on each, put them together."""

from amqtask import App, Context, group

app = App("reports", backend="rpc://", default_queue="reports")


@app.task
def fetch(shop: str) -> list[int]:
    if shop == "closed":
        raise LookupError("nobody answers")
    return [len(shop), 10 * len(shop)]


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def report(totals: list[int], title: str) -> str:
    return f"{title}: {', '.join(map(str, totals))}"


@app.task
def tell(id: str, error: Exception, traceback: str | None) -> None:
    print(f"failed: {error}", flush=True)


@app.task(bind=True)
def fetch_all(self: Context, shops: list[str]) -> list[int]:
    """Run a group, whose size is not known before, in this call's place."""
    self.replace(group(fetch.s(shop) | total.s() for shop in shops))
