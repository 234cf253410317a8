"""Look at the schedule of a running beat, and change it."""

from tasks import app

from amqtask import ConfigurationError, every


def show() -> None:
    for entry in sorted(app.schedules.list(), key=lambda entry: entry.name):
        state = "paused" if entry.paused else "on"
        print(f"  {entry.name:<13} {entry.origin:<8} {entry.schedule:<38} {state}")


print("as the code has it:")
show()

app.schedules.add("look south", "tasks.look", every(minutes=10), args=["south"], jitter=30)
app.schedules.pause("report")
print("changed while the beat runs:")
show()

app.schedules.edit("look south", schedule="every 5m", jitter=None)
print("look south is now", app.schedules.get("look south").schedule)
print("sent out of turn:", len(app.schedules.run_now("look south")) == 36)

try:
    app.schedules.remove("report")
except ConfigurationError as error:
    print("refused:", error)

app.schedules.remove("look south")
app.schedules.resume("report")
print("as it was:")
show()
