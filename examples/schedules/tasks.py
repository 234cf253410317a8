"""A weather service: it looks out every second, and writes a report each morning."""

from amqtask import App, cron, every

app = App("weather", default_queue="weather")


@app.task
def look(window: str) -> None: ...


@app.task(schedule=cron("0 7 * * mon-fri", tz="Europe/Paris"), name="report")
def report() -> None: ...


app.schedule("look out", look, every(seconds=1), args=["north"])
