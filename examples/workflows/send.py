"""Chains, groups and chords, and what becomes of them."""

from tasks import fetch, fetch_all, report, tell, total

from amqtask import ChordError, WorkflowFailed, chord, group

# each step gets the value of the one before
print((fetch.s("york") | total.s()).delay().get(timeout=30))

# side by side
print(group(fetch.s("york"), fetch.s("bath")).delay().get(timeout=30))

# a group with something after it is a chord: that gets the list of all values
shops = group(fetch.s(shop) | total.s() for shop in ("york", "bath", "ripon"))
result = (shops | report.s("Totals")).delay()
print(result.get(timeout=30))
print(f"{len(result.steps)} calls, the header gave {result.parent.get(timeout=30)}")

# a task can put a workflow in its own place
print((fetch_all.s(["york", "ely"]) | report.s("Found")).delay().get(timeout=30))

# a failure ends what depends on it, and says where it was
failing = (fetch.s("closed") | total.s() | report.s("Never")).on_error(tell.s()).delay()
try:
    failing.get(timeout=30)
except WorkflowFailed as error:
    print(f"{type(error).__name__}: {error.task}")
try:
    chord([fetch.s("york"), fetch.s("closed")], report.s("Never")).delay().get(timeout=30)
except ChordError as error:
    print(type(error).__name__)
