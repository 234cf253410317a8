"""What is done to workers, links and brokers.

A fault is a function that does it, undoes it, and returns once all that it broke could work
again: from then on the clock of the recovery runs. What it returns is who may have had calls in
flight, and how many; a fault that may not cost any returns nothing, and so explains no repeat.
"""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psutil

from tests.acceptance.chaos.judge import Harm
from tests.acceptance.chaos.site import (
    HEARTBEAT,
    PREFETCH,
    PROCESSES,
    PUBLISH_TIMEOUT,
    QUEUES,
    STOPPED,
    Link,
    Site,
)
from tests.acceptance.chaos.workers import STOP_TIMEOUT, Worker
from tests.cluster import Node
from tests.proxy import Proxy

#: Calls that one worker process may have in flight: what it has not acknowledged.
HELD = PREFETCH * QUEUES
#: Calls that a broker may have between two of its queues: what a dead-letter consumer of RabbitMQ
#: has unconfirmed, for each of the delay levels that short delays use.
BETWEEN = 32 * 7
#: Seconds without an answer after which either side has dropped the connection for certain.
SILENCE = HEARTBEAT * 2 + 2.0

Act = Callable[[Site, random.Random], Harm | None]
Can = Callable[[Site], bool]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: What ``--only`` calls it.
        act: Does it.
        can: Whether it can be done here.
        lossy: Whether the expendable queue's messages are gone afterwards.
    """

    name: str
    act: Act
    can: Can
    lossy: bool = False


CATALOGUE: dict[str, Fault] = {}


def _always(_: Site) -> bool:
    return True


def _private(site: Site) -> bool:
    return site.cluster is not None


def _fault(name: str, can: Can = _always, *, lossy: bool = False) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        CATALOGUE[name] = Fault(name, act, can, lossy)
        return act

    return add


def _one(site: Site, rng: random.Random) -> tuple[Worker, Link]:
    index = rng.randrange(len(site.workers))
    return site.workers[index], site.links[index]


def _child(worker: Worker, rng: random.Random) -> psutil.Process:
    return rng.choice(worker.children)


def _pids(*workers: Worker) -> frozenset[int]:
    return frozenset(child.pid for worker in workers for child in worker.children)


def _gone(processes: Sequence[psutil.Process], timeout: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=timeout)
    assert not alive, f"orphaned: {alive} still run {timeout:g} s after their parent's end"


# -- processes ------------------------------------------------------------------


@_fault("child.kill")
def kill_child(site: Site, rng: random.Random) -> Harm:
    """SIGKILL for one child: its deliveries come again, and another child starts."""
    worker, _ = _one(site, rng)
    child = _child(worker, rng)
    runners = child.children()
    child.kill()
    _gone(runners, STOPPED)
    return Harm("child.kill", 0.0, children=frozenset({child.pid}), room=HELD)


@_fault("runner.kill", lambda site: any(worker.runners for worker in site.workers))
def kill_runner(site: Site, rng: random.Random) -> Harm:
    """SIGKILL for one isolated process: at most the call in it runs again."""
    worker = rng.choice([worker for worker in site.workers if worker.runners])
    runner = rng.choice(worker.runners)
    child = runner.ppid()
    runner.kill()
    return Harm("runner.kill", 0.0, children=frozenset({child}), room=1)


@_fault("supervisor.kill")
def kill_supervisor(site: Site, rng: random.Random) -> None:
    """SIGKILL for a supervisor alone: its children see it, and end in good order."""
    worker, _ = _one(site, rng)
    left = [*worker.children, *worker.runners]
    worker.process.kill()
    worker.process.wait()
    _gone(left, STOP_TIMEOUT)
    worker.start()


@_fault("worker.kill")
def kill_worker(site: Site, rng: random.Random) -> Harm:
    """SIGKILL for all of a worker at once; another one is started."""
    worker, _ = _one(site, rng)
    pids = _pids(worker)
    left = [*worker.children, *worker.runners]
    worker.kill()
    _gone(left, STOPPED)
    worker.start()
    return Harm("worker.kill", 0.0, children=pids, room=HELD * len(pids))


@_fault("child.freeze")
def freeze_child(site: Site, rng: random.Random) -> Harm:
    """SIGSTOP for one child, as on a machine that swaps, for longer than the broker is patient."""
    worker, _ = _one(site, rng)
    child = _child(worker, rng)
    child.suspend()
    time.sleep(rng.uniform(2.0, SILENCE + 3.0))
    with suppress(psutil.NoSuchProcess):  # a supervisor may have ended it meanwhile
        child.resume()
    return Harm("child.freeze", 0.0, children=frozenset({child.pid}), room=HELD)


@_fault("child.stop")
def stop_child(site: Site, rng: random.Random) -> None:
    """SIGTERM for one child: it ends in good order, and another one starts."""
    worker, _ = _one(site, rng)
    child = _child(worker, rng)
    left = [child, *child.children()]
    child.terminate()
    _gone(left, STOP_TIMEOUT)


@_fault("worker.restart")
def restart_worker(site: Site, rng: random.Random) -> None:
    """SIGTERM for a worker, and the next one: nothing is lost or repeated by a deploy."""
    worker, _ = _one(site, rng)
    left = [*worker.children, *worker.runners]
    code = worker.stop()
    assert code == 0, f"{worker.name} ended with {code} on SIGTERM; its log:\n{worker.tail()}"
    _gone(left, STOPPED)
    worker.start()


@_fault("worker.reload", lambda site: site.workers[0].catches(signal.SIGHUP))
def reload_worker(site: Site, rng: random.Random) -> None:
    """SIGHUP: children are replaced one after the other, in good order."""
    worker, _ = _one(site, rng)
    old = worker.children
    worker.process.send_signal(signal.SIGHUP)
    _gone(old, STOP_TIMEOUT * 2)


# -- links ------------------------------------------------------------------------


def _on_link(
    name: str, site: Site, rng: random.Random, disturb: Callable[[Link], None]
) -> Harm | None:
    """Disturb one worker's link, and count what that cost."""
    worker, link = _one(site, rng)
    pids, before = _pids(worker), link.ended
    disturb(link)
    return Harm(name, 0.0, children=pids, room=HELD * max(len(pids), link.ended - before))


@_fault("link.cut")
def cut_link(site: Site, rng: random.Random) -> Harm | None:
    """Every connection of a worker is reset."""
    return _on_link("link.cut", site, rng, lambda link: link.each(Proxy.cut))


@_fault("link.hole")
def black_hole(site: Site, rng: random.Random) -> Harm | None:
    """Nothing passes, without a FIN, for longer than heartbeats are patient."""

    def disturb(link: Link) -> None:
        link.each(Proxy.black_hole)
        time.sleep(SILENCE + rng.uniform(0.0, 3.0))
        link.each(Proxy.forward)

    return _on_link("link.hole", site, rng, disturb)


@_fault("link.deaf")
def one_way(site: Site, rng: random.Random) -> Harm | None:
    """What the broker says does not arrive; what it hears, it hears."""

    def disturb(link: Link) -> None:
        link.each(partial(Proxy.black_hole, requests=False))
        time.sleep(SILENCE)
        link.each(Proxy.forward)

    return _on_link("link.deaf", site, rng, disturb)


@_fault("link.half_open")
def half_open(site: Site, rng: random.Random) -> Harm | None:
    """The broker's side is gone and the worker is not told: only its heartbeat can tell."""
    return _on_link("link.half_open", site, rng, lambda link: link.each(Proxy.half_open))


@_fault("link.down")
def refuse(site: Site, rng: random.Random) -> Harm | None:
    """No connection holds, old or new, for some seconds."""

    def disturb(link: Link) -> None:
        link.each(Proxy.down)
        time.sleep(rng.uniform(2.0, 6.0))
        link.each(Proxy.up)

    return _on_link("link.down", site, rng, disturb)


@_fault("link.late")
def delay(site: Site, rng: random.Random) -> None:
    """All that passes is late, but not too late: nothing may come of it."""
    _, link = _one(site, rng)
    link.each(lambda proxy: proxy.delay(0.3))
    time.sleep(rng.uniform(2.0, 5.0))
    link.each(Proxy.forward)


@_fault("client.cut")
def cut_clients(site: Site, rng: random.Random) -> Harm:
    """The clients' connections are reset in the middle of their publishing."""
    for _ in range(3):
        site.client.each(Proxy.cut)
        time.sleep(rng.uniform(0.0, 0.5))
    return Harm("client.cut", 0.0, client=True)


# -- the broker ---------------------------------------------------------------------


def _everyone(name: str, site: Site, *, levels: int = 0, boot: bool = False) -> Harm:
    pids = _pids(*site.workers)
    room = HELD * len(site.workers) * PROCESSES
    return Harm(name, 0.0, children=pids, room=room, client=True, levels=levels, boot=boot)


#: What a node does to the connections of its clients when it is told to close them.
_CLOSE = """
    [rabbit_networking:close_connection(C, "chaos") || C <- rabbit_networking:connections(),
        node(C) =:= node()].
"""


def _nodes(site: Site) -> list[Node]:
    assert site.cluster is not None
    return site.cluster.nodes


@_fault("broker.close_connections", _private)
def close_connections(site: Site, rng: random.Random) -> Harm:
    """Every node closes its connections, with 320 and a word."""
    harm = _everyone("broker.close_connections", site)
    for node in _nodes(site):
        node.evaluate(_CLOSE)
    return harm


@_fault("broker.close_channels", _private)
def close_channels(site: Site, rng: random.Random) -> Harm:
    """A node closes every channel on it, as after an ack timeout; connections stay."""
    harm = _everyone("broker.close_channels", site)
    reason = '{amqp_error, precondition_failed, "chaos", none}'
    for node in _nodes(site):
        node.evaluate(f"[exit(C, {reason}) || C <- rabbit_channel:list_local()].")
    return harm


@_fault("queue.delete", lossy=True)
def delete_queue(site: Site, rng: random.Random) -> Harm:
    """The expendable queue is deleted with all that is in it: its consumers are cancelled."""
    harm = _everyone("queue.delete", site)
    with site.channel() as channel:
        channel.queue_delete(site.expendable)
    return harm


@_fault("node.kill", _private)
def kill_node(site: Site, rng: random.Random) -> Harm:
    """SIGKILL for one node of three, which comes back some seconds later."""
    harm = _everyone("node.kill", site, levels=BETWEEN)
    node = rng.choice(_nodes(site))
    node.kill()
    time.sleep(rng.uniform(1.0, 5.0))
    node.start()
    node.await_up()
    return harm


@_fault("node.stop", _private)
def stop_node(site: Site, rng: random.Random) -> Harm:
    """One node of three ends in good order, and comes back."""
    harm = _everyone("node.stop", site, levels=BETWEEN)
    node = rng.choice(_nodes(site))
    node.stop()
    time.sleep(rng.uniform(0.5, 3.0))
    node.start()
    node.await_up()
    return harm


@_fault("node.drain", _private)
def drain_node(site: Site, rng: random.Random) -> Harm:
    """One node is put into maintenance: it drops its clients and hands its queues over."""
    harm = _everyone("node.drain", site, levels=BETWEEN)
    node = rng.choice(_nodes(site))
    node.evaluate("rabbit_maintenance:drain().")
    time.sleep(rng.uniform(1.0, 3.0))
    node.evaluate("rabbit_maintenance:revive().")
    return harm


@_fault("broker.kill", _private)
def kill_broker(site: Site, rng: random.Random) -> Harm:
    """SIGKILL for all nodes at once; they boot again side by side."""
    harm = _everyone("broker.kill", site, levels=BETWEEN, boot=True)
    nodes = _nodes(site)
    for node in nodes:
        node.kill()
    for node in nodes:
        node.start()
    for node in nodes:
        node.await_up()
    return harm


@_fault("broker.alarm", _private)
def memory_alarm(site: Site, rng: random.Random) -> Harm | None:
    """Every node is out of memory by its own measure, and takes no publishes for a while."""
    harm = _everyone("broker.alarm", site)
    begun = time.monotonic()
    _watermark(site, "{absolute, 1000000}")
    time.sleep(rng.uniform(2.0, 6.0))
    _watermark(site, "0.4")
    # a worker that gives up on a confirm publishes again, and the broker may get to have both
    return harm if time.monotonic() - begun > PUBLISH_TIMEOUT / 2 else None


def _watermark(site: Site, most: str) -> None:
    for node in _nodes(site):
        node.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({most}).")


@_fault("broker.password", _private)
def other_password(site: Site, rng: random.Random) -> Harm:
    """Connections are closed while the password is another one: refused, and yet not given up."""
    harm = _everyone("broker.password", site)
    _password(site, "another")
    try:
        for node in _nodes(site):
            node.evaluate(_CLOSE)
        time.sleep(rng.uniform(2.0, 4.0))
    finally:
        _password(site, "guest")
    return harm


def _password(site: Site, word: str) -> None:
    """Change it in all nodes; one that has just booted may need another try."""
    change = "rabbit_auth_backend_internal:change_password"
    refusals = []
    for node in itertools.islice(itertools.cycle(_nodes(site)), 9):
        try:
            node.evaluate(f'{change}(<<"guest">>, <<"{word}">>, <<"chaos">>).')
            return
        except AssertionError as error:
            refusals.append(str(error))
            time.sleep(1.0)
    raise AssertionError("; ".join(refusals))
