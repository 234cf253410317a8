"""``python -m amqtask`` is the ``amqtask`` command."""

from amqtask.cli import main

if __name__ == "__main__":
    main()
