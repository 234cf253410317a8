"""Send everything in the dead-letter queue back to where it failed, with its retries renewed."""

import pika
from tasks import app

connection = pika.BlockingConnection(pika.URLParameters(app.settings.broker[0]))
channel = connection.channel()
channel.confirm_delivery()  # publishing returns when the broker has the message, or raises
dead = channel.queue_declare("billing.dead", passive=True).method.message_count
for _ in range(dead):
    method, properties, body = channel.basic_get("billing.dead")
    if method is None or properties is None or body is None:
        break
    properties.headers["retries"] = 0
    channel.basic_publish("", properties.headers["amqtask-queue"], body, properties, mandatory=True)
    channel.basic_ack(method.delivery_tag)  # only now: a crash before repeats it, and loses nothing
    print(f"sent back {properties.headers['task']} {properties.headers['argsrepr']}")
connection.close()
