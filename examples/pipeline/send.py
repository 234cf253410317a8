"""Send many calls at once, each of them confirmed by the broker."""

from tasks import app, count

from amqtask import PipelineError

with app.pipeline() as pipeline:
    for article in range(1000):
        count.options(ignore_result=True).delay(article)
print(f"{pipeline.confirmed} of {pipeline.sent} calls confirmed")

results = count.delay_many([(article, 2) for article in range(100)])
print(f"{sum(result.get(timeout=30) for result in results)} pieces counted")

try:
    with app.pipeline() as pipeline:
        count.delay(1)
        count.options(routing_key="nobody.listens").delay(2)
except PipelineError as error:
    for _, reason in error.failures:
        print(f"a call failed with {type(reason).__name__}")
    print(f"{error.confirmed} of {pipeline.sent} calls confirmed")
