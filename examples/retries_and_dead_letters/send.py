"""Send calls that fail, and show how each one ends."""

from tasks import charge, close, refund

for call in (
    charge.delay(1, busy=2),
    charge.delay(2, busy=9),
    refund.delay(3),
    close.delay(4),
    close.delay(-5),
):
    try:
        print(call.get(timeout=20))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
