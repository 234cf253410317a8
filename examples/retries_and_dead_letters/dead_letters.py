"""Show what is in the dead-letter queue, and leave it there."""

import pika
from tasks import app

connection = pika.BlockingConnection(pika.URLParameters(app.settings.broker[0]))
channel = connection.channel()
while True:
    method, properties, body = channel.basic_get("billing.dead")
    if properties is None:
        break
    headers = properties.headers
    print(f"{headers['task']} {headers['argsrepr']} {headers['kwargsrepr']}")
    print(f"  {headers['amqtask-reason']}, attempt {headers['amqtask-attempts']}")
    print(f"  {headers['amqtask-exception']}")
connection.close()  # gives back what was only looked at
