"""What a broker has to do: one suite that runs on RabbitMQ 3.10, RabbitMQ 4 and the embedded one.

A behaviour belongs to the embedded broker once the same test has passed on RabbitMQ, so no test
here asks which broker it talks to; where RabbitMQ's versions differ, `differences` says how and
why. Three clients speak to it: pika and aio-pika, because users do, and `wire`, because what a
client hides (frame order, `multiple`, class and method ids) is part of the contract too.
"""
