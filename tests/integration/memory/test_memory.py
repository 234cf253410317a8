"""``memory://``: a broker inside the process, for all of its apps, as a program uses it.

Each test is a program of its own, as there is one such broker in a process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Seconds; far more than any of these takes.
TIMEOUT = 60.0
START = """
import asyncio, os, threading
from amqtask import App
from amqtask.worker import Node

def work(app):
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    node = Node(app)
    asyncio.run_coroutine_threadsafe(node.start(), loop).result()
    return lambda: asyncio.run_coroutine_threadsafe(node.stop(), loop).result()

app = App("shop", broker="memory://", backend="rpc://", environ={})

@app.task(name="add")
def add(a, b):
    return a + b

"""


def run(source: str) -> subprocess.CompletedProcess[str]:
    """Run a program that must end well, and say nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + source],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done


def test_an_app_and_a_worker_in_one_process() -> None:
    """Nothing to install and nothing to start; the end of the process is quiet."""
    done = run("stop = work(app); print(add.delay(1, 2).get(timeout=60)); stop()")
    assert done.stdout == "3\n"


def test_a_process_that_just_ends() -> None:
    """A result is awaited by nobody, and nothing is closed: it ends, and without a word."""
    done = run("app.send_task('add', (1, 2)); print(add.delay(3, 4).ready())")
    assert done.stdout == "False\n"


def test_apps_that_name_the_same_share_it() -> None:
    """The same URL is the same broker; another name is one apart."""
    done = run("""
from amqtask import Unroutable
stop = work(app)
other = App("client", broker="memory://", backend="rpc://", environ={})
print(other.send_task("add", (2, 3)).get(timeout=60))
apart = App("apart", broker="memory://Orders", backend="rpc://", environ={})
print(apart.send_task("add", (2, 3)).ready(), apart.transport.urls)
stop()
""")
    assert done.stdout == "5\nFalse [<BrokerURL memory://Orders>]\n"


def test_a_forked_child_reaches_it() -> None:
    """By its port: what the parent's broker held is where it was, and nothing is there twice."""
    done = run("""
stop = work(app)
print(add.delay(1, 2).get(timeout=60), flush=True)
pid = os.fork()
if pid == 0:
    print("child", add.delay(3, 4).get(timeout=60), flush=True)
    app.close()
    raise SystemExit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent", add.delay(5, 6).get(timeout=60), flush=True)
stop()
""")
    assert done.stdout == "3\nchild 7\nparent 11\n"


def test_a_child_does_not_keep_the_broker_alive() -> None:
    """Once the parent has stopped it, a child is refused at once rather than left waiting."""
    done = run("""
import socket
from amqtask.broker import memory
app.send_task("add", (1, 2))
port = memory.shared().port
ask, tell = os.pipe()
answer, said = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(ask, 1)
    try:
        socket.create_connection(("127.0.0.1", port), 5)
        os.write(said, b"connected")
    except ConnectionRefusedError:
        os.write(said, b"refused")
    os._exit(0)
app.close()
memory.stop()
os.write(tell, b"x")
print(os.read(answer, 20).decode())
os.waitpid(pid, 0)
""")
    assert done.stdout == "refused\n"


@pytest.mark.parametrize("first", ["parent", "child"])
def test_who_is_first_has_it(first: str) -> None:
    """A child that is the first to use it has one of its own."""
    done = run(f"""
if {first == "parent"}:
    app.send_task("add", (1, 2))
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    from amqtask.broker import memory
    os.write(write, memory.url_of("").encode())
    os._exit(0)
os.waitpid(pid, 0)
from amqtask.broker import memory
print(os.read(read, 100).decode() == memory.url_of(""))
""")
    assert done.stdout == f"{first == 'parent'}\n"
