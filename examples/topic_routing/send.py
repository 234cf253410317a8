"""Send calls under topics, and see which queue each one took."""

from tasks import audit, handle

from amqtask import Unroutable

for order, topic in enumerate(["order.eu.paid", "order.us.paid", "order.asia.jp.sent"]):
    print(handle.options(routing_key=topic).delay(order).get(timeout=10))

print(handle.delay(3).get(timeout=10))  # no topic: the default queue
print(handle.options(queue="europe").delay(4).get(timeout=10))
print(audit.delay(5).get(timeout=10))  # by the rule

try:
    handle.options(routing_key="order.mars.paid").delay(6)
except Unroutable as error:
    print(f"{type(error).__name__}: no queue takes {error.routing_key}")
