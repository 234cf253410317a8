"""amqtask sends, a Celery worker runs it."""

from amqtask_side import app

print(app.send_task("celery_side.convert", [20, "EUR"], queue="legacy").get(timeout=20))
print(app.send_task("celery_side.convert", [3, "JPY"], queue="legacy", countdown=1).get(timeout=20))
