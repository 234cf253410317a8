"""Beat: what is to run at which time, and who sends it.

`amqtask.beat.service` is the whole of one beat; `amqtask.beat.leader` decides
which of several is the one that sends, `amqtask.beat.state` is what it hands on.
"""
