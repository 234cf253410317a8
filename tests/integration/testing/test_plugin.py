"""The pytest plugin, as its users meet it: small suites, run by a pytest of their own."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("_elsewhere")

SHOP = """
    from amqtask import App, RetryPolicy

    app = App("shop", broker="amqp://127.0.0.1:1/", backend="rpc://")

    @app.task(queue="email")
    def welcome(name):
        return f"Welcome, {name}!"

    @app.task(retry=RetryPolicy(max_retries=2, on=(OSError,), backoff=60, jitter=False), bind=True)
    def fetch(self, attempts):
        if self.attempt < attempts:
            raise OSError("the line is busy")
        return self.attempt

    @app.task
    async def fail(text):
        raise ValueError(text)
"""
INI = """
    [pytest]
    {app}
    asyncio_mode = auto
    asyncio_default_fixture_loop_scope = function
    filterwarnings = error
"""


@pytest.fixture
def _elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this run's own settings reaches the suites under test."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "AMQTASK_BROKER", "AMQTASK_APP"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(shop=SHOP)
    pytester.makeini(INI.format(app="amqtask_app = shop:app"))


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *arguments)


def test_each_fixture(pytester: pytest.Pytester) -> None:
    """Broker, worker, eager mode; in plain tests and in coroutines."""
    pytester.makepyfile("""
        import pytest
        from amqtask import every
        from shop import app, fail, fetch, welcome

        def test_only_sent(amqtask_broker):
            welcome.options(countdown=60).delay("Ada")
            amqtask_broker.assert_sent(welcome, "Ada", queue="email", countdown=60)

        def test_worker(amqtask_worker, amqtask_app):
            assert amqtask_app is app
            result = welcome.delay("Ada")
            amqtask_worker.run_until_idle()
            assert result.get(timeout=0) == "Welcome, Ada!"

        def test_time(amqtask_worker, amqtask_broker):
            result = fetch.delay(3)
            amqtask_broker.advance(59)
            assert not result.ready()
            amqtask_broker.advance(122)
            assert result.get(timeout=0) == 3

        def test_beat(amqtask_worker, amqtask_beat, amqtask_broker):
            app.schedules.add("greet", "shop.welcome", every(hours=1), args=["Ada"])
            amqtask_broker.advance(3 * 3600)
            amqtask_broker.assert_sent(welcome, "Ada", times=3)
            assert amqtask_beat.counts == {"due": 3}

        async def test_coroutine(amqtask_worker):
            result = await welcome.adelay("Grace")
            await amqtask_worker.arun_until_idle()
            assert await result == "Welcome, Grace!"

        def test_failure(amqtask_worker):
            fail.delay("no")
            with pytest.raises(ValueError, match="no"):
                amqtask_worker.run_until_idle()

        def test_eager(amqtask_eager):
            assert welcome.delay("Ada").get(timeout=0) == "Welcome, Ada!"
            with pytest.raises(ValueError, match="no"):
                fail.delay("no")
            amqtask_eager.assert_sent(welcome, "Ada")
    """)
    run(pytester).assert_outcomes(passed=7)


def test_failures_have_helpful_texts(pytester: pytest.Pytester) -> None:
    """What was sent instead; and what a task raised that nobody looked at, at the test's end."""
    pytester.makepyfile("""
        from shop import fail, welcome

        def test_not_sent(amqtask_broker):
            welcome.delay("Ada")
            amqtask_broker.assert_sent(welcome, "Grace")

        def test_unseen(amqtask_worker):
            fail.delay("the disk is full")
            while not amqtask_worker.counts:
                pass
    """)
    ended = run(pytester)
    ended.assert_outcomes(failed=1, passed=1, errors=1)
    ended.stdout.fnmatch_lines(
        [
            "*shop.welcome('Grace') was not sent",
            "*shop.welcome('Ada')  -> queue 'email'",
            "*differs: name is 'Ada'",
        ]
    )
    ended.stdout.fnmatch_lines(
        ["*ValueError: the disk is full", "*raised by task 'shop.fail' (id *, attempt 1)"]
    )


def test_the_app_in_code(pytester: pytest.Pytester) -> None:
    """Without the ini option a conftest says which app; without either, an error does."""
    pytester.makeini(INI.format(app=""))
    pytester.makepyfile("""
        from shop import welcome

        def test_worker(amqtask_worker):
            result = welcome.delay("Ada")
            amqtask_worker.run_until_idle()
            assert result.get(timeout=0) == "Welcome, Ada!"
    """)
    ended = run(pytester)
    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines(["*no app is named: put amqtask_app = shop.tasks:app into*"])
    pytester.makeconftest("""
        import pytest

        @pytest.fixture
        def amqtask_app():
            from shop import app
            return app
    """)
    run(pytester).assert_outcomes(passed=1)


def test_in_parallel(pytester: pytest.Pytester) -> None:
    """Each process of pytest-xdist has a broker of its own."""
    pytester.makepyfile("""
        import pytest
        from shop import welcome

        @pytest.mark.parametrize("number", range(8))
        def test_worker(amqtask_worker, amqtask_broker, number):
            result = welcome.delay(str(number))
            amqtask_worker.run_until_idle()
            assert result.get(timeout=0) == f"Welcome, {number}!"
            assert len(amqtask_broker.sent()) == 1
    """)
    run(pytester, "-n", "2").assert_outcomes(passed=8)


@pytest.mark.parametrize("without", ["no:asyncio", "no:anyio", "no:xdist"])
def test_beside_other_plugins(pytester: pytest.Pytester, without: str) -> None:
    """It needs none of them."""
    pytester.makeini("[pytest]\namqtask_app = shop:app\n")
    pytester.makepyfile("""
        from shop import welcome

        def test_worker(amqtask_worker):
            welcome.delay("Ada")
            amqtask_worker.run_until_idle()
    """)
    run(pytester, "-p", without).assert_outcomes(passed=1)


def test_it_costs_nothing_when_unused(pytester: pytest.Pytester) -> None:
    """A run without its fixtures does not even import amqtask."""
    pytester.makepyfile("""
        import sys

        def test_not_there():
            assert "pytest_amqtask" in sys.modules
            assert not [name for name in sys.modules if name.split(".")[0] in ("amqtask", "pika")]
    """)
    run(pytester).assert_outcomes(passed=1)
    listed = run(pytester, "--fixtures")
    listed.stdout.fnmatch_lines(["amqtask_broker -- *", "*A broker of the test's own;*"])


def test_nothing_is_left(pytester: pytest.Pytester) -> None:
    """Threads, sockets and the app's own broker are afterwards as they were."""
    pytester.makepyfile("""
        import threading
        import psutil
        from shop import app, welcome

        def test_worker(amqtask_worker):
            welcome.delay("Ada")
            amqtask_worker.run_until_idle()

        def test_after():
            names = sorted(thread.name for thread in threading.enumerate())
            assert [name for name in names if name.startswith("amqtask")] == ["amqtask-broker"]
            assert [each for each in psutil.Process().net_connections() if each.raddr] == []
            assert [str(url) for url in app.transport.urls] == ["amqp://guest@127.0.0.1:1"]
    """)
    run(pytester).assert_outcomes(passed=2)
