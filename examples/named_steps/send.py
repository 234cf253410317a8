"""Run the workflow, and look at it."""

from tasks import app, nightly

run = nightly.delay()
print(run.get(timeout=30))
print(run["converted"].get())
print(run.progress())
print(nightly.added())
app.close()
