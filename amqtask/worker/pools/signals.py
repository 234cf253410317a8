"""The signals that runners listen to, shared by node and runner."""

from __future__ import annotations

import signal

#: Has a runner write down its stack.
STACKS = signal.SIGUSR1
#: Has a runner look at what it was asked, wherever its main thread is.
POKE = signal.SIGUSR2
