"""Remote control: what runs answers requests that come over an exchange.

`amqtask.control.agent` is the side that answers; `amqtask.asking` the one that asks.
"""
