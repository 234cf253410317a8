"""Celery sends, an amqtask worker runs it."""

from celery_side import app

print(app.send_task("amqtask_side.invoice", [7]).get(timeout=20))
print(app.send_task("amqtask_side.invoice", [8], countdown=1).get(timeout=20))
