"""Call tasks from asyncio: nothing here blocks the event loop."""

import asyncio

from tasks import divide, square

from amqtask import ResultTimeout


async def main() -> None:
    # each adelay returns when the broker has the call; the tasks then run side by side
    calls = [await square.adelay(number) for number in range(5)]
    print(await asyncio.gather(*calls))

    later = await square.options(countdown=1).adelay(12)
    try:
        await later.aget(timeout=0.1)
    except ResultTimeout:
        print("12 squared is not there yet")
    print(await later)

    try:
        await (await divide.adelay(1, 0))
    except ZeroDivisionError as error:
        print(f"the task raised ZeroDivisionError: {error}")


asyncio.run(main())
