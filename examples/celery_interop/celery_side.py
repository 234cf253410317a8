"""The Celery side: an app as a team has it, and where it sends tasks that amqtask runs.

Its worker: celery -A celery_side worker --queues legacy
"""

from celery import Celery

app = Celery("legacy", broker="amqp://guest:guest@127.0.0.1:5672/", backend="rpc://")
app.conf.task_default_queue = "legacy"
# publish to amqtask's exchange and declare nothing there: its queues are amqtask's to make
app.conf.task_routes = {"amqtask_side.*": {"exchange": "amqtask", "routing_key": "orders"}}


@app.task
def convert(amount: int, currency: str) -> str:
    return f"{amount} {currency}, converted by Celery"
