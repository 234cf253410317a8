"""The tasks of a small shop, and code that sends them."""

from amqtask import App, RetryPolicy, cron

app = App("shop", backend="rpc://")

STOCK = {"tea": 3}


class CarrierDown(Exception):
    """The carrier's service does not answer."""


@app.task(queue="email")
def welcome(name: str, *, language: str = "en") -> str:
    return {"en": "Welcome", "fr": "Bienvenue"}[language] + f", {name}!"


@app.task(queue="shipping", retry=RetryPolicy(max_retries=3, on=(CarrierDown,), backoff=60))
async def ship(order: int, carrier: str = "post") -> str:
    return await book(order, carrier)


@app.task
def remind(order: int) -> None:
    welcome.delay(f"customer of order {order}")


@app.task(schedule=cron("0 9 * * mon"))
def stock_take() -> dict[str, int]:
    return dict(STOCK)


async def book(order: int, carrier: str) -> str:
    """Stand for a carrier's service; tests replace it."""
    return f"{carrier}-{order}"


def sign_up(name: str) -> None:
    """Greet a new customer now, and write again in a week."""
    welcome.delay(name)
    remind.options(countdown=7 * 24 * 3600).delay(order=1)
