"""amqtask: tasks on RabbitMQ, confirmed, retried and never lost."""

import typing

from amqtask.app import App
from amqtask.context import Context, current_task
from amqtask.errors import (
    AccessRefused,
    AmqtaskError,
    AppNotFound,
    ArgumentsError,
    BackendError,
    BackendUnavailable,
    Blocked,
    BrokerUnreachable,
    CallError,
    ChannelClosed,
    ChordError,
    ConfigurationError,
    ConnectionLost,
    ContentDisallowed,
    ControlError,
    DecodedTooLarge,
    DelayTooLong,
    EncodeError,
    Ignore,
    MalformedMessage,
    MessageError,
    MessageTooLarge,
    Nacked,
    NoAnswer,
    NoBackend,
    PipelineError,
    PublishError,
    PublishTimeout,
    Reject,
    RemoteError,
    Replace,
    ReplyLost,
    ResultError,
    ResultTimeout,
    ResultTooLarge,
    RetriesExhausted,
    Retry,
    SoftTimeLimitExceeded,
    TaskCancelled,
    TaskRevoked,
    TaskSignal,
    TimeLimitExceeded,
    TopologyMismatch,
    TransportError,
    UnknownSetting,
    UnknownTask,
    Unroutable,
    WaitInTask,
    WorkerLost,
    WorkflowFailed,
)
from amqtask.pipeline import Pipeline
from amqtask.policy.retry import RetryPolicy
from amqtask.progress import Progress
from amqtask.result import AsyncResult, GroupResult, ResultSet, Tally, as_completed
from amqtask.settings import Settings
from amqtask.task import AsyncTask, SyncTask, Task
from amqtask.topology.entities import Binding, Exchange, Queue
from amqtask.waiting import allow_waiting

# A program without schedules and workflows need not take the time to import them.
if typing.TYPE_CHECKING:
    from amqtask.policy.entry import Entry
    from amqtask.policy.schedule import Cron, Every, Once, Schedule, cron, every, once
    from amqtask.schedules import ScheduleInfo, Schedules
    from amqtask.workflow.builder import Workflow
    from amqtask.workflow.canvas import GroupSignature, Signature
    from amqtask.workflow.compose import chain, chord, group, signature
    from amqtask.workflow.run import WorkflowRun
else:
    _LATE = {
        "Cron": "amqtask.policy.schedule",
        "Entry": "amqtask.policy.entry",
        "Every": "amqtask.policy.schedule",
        "GroupSignature": "amqtask.workflow.canvas",
        "Once": "amqtask.policy.schedule",
        "Schedule": "amqtask.policy.schedule",
        "ScheduleInfo": "amqtask.schedules",
        "Schedules": "amqtask.schedules",
        "Signature": "amqtask.workflow.canvas",
        "Workflow": "amqtask.workflow.builder",
        "WorkflowRun": "amqtask.workflow.run",
        "chain": "amqtask.workflow.compose",
        "chord": "amqtask.workflow.compose",
        "cron": "amqtask.policy.schedule",
        "every": "amqtask.policy.schedule",
        "group": "amqtask.workflow.compose",
        "once": "amqtask.policy.schedule",
        "signature": "amqtask.workflow.compose",
    }

    def __getattr__(name):
        """Import what is called so, and keep it."""
        import importlib

        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_LATE[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *_LATE})


__version__ = "0.1.0"

__all__ = [
    "AccessRefused",
    "AmqtaskError",
    "App",
    "AppNotFound",
    "ArgumentsError",
    "AsyncResult",
    "AsyncTask",
    "BackendError",
    "BackendUnavailable",
    "Binding",
    "Blocked",
    "BrokerUnreachable",
    "CallError",
    "ChannelClosed",
    "ChordError",
    "ConfigurationError",
    "ConnectionLost",
    "ContentDisallowed",
    "Context",
    "ControlError",
    "Cron",
    "DecodedTooLarge",
    "DelayTooLong",
    "EncodeError",
    "Entry",
    "Every",
    "Exchange",
    "GroupResult",
    "GroupSignature",
    "Ignore",
    "MalformedMessage",
    "MessageError",
    "MessageTooLarge",
    "Nacked",
    "NoAnswer",
    "NoBackend",
    "Once",
    "Pipeline",
    "PipelineError",
    "Progress",
    "PublishError",
    "PublishTimeout",
    "Queue",
    "Reject",
    "RemoteError",
    "Replace",
    "ReplyLost",
    "ResultError",
    "ResultSet",
    "ResultTimeout",
    "ResultTooLarge",
    "RetriesExhausted",
    "Retry",
    "RetryPolicy",
    "Schedule",
    "ScheduleInfo",
    "Schedules",
    "Settings",
    "Signature",
    "SoftTimeLimitExceeded",
    "SyncTask",
    "Tally",
    "Task",
    "TaskCancelled",
    "TaskRevoked",
    "TaskSignal",
    "TimeLimitExceeded",
    "TopologyMismatch",
    "TransportError",
    "UnknownSetting",
    "UnknownTask",
    "Unroutable",
    "WaitInTask",
    "WorkerLost",
    "Workflow",
    "WorkflowFailed",
    "WorkflowRun",
    "__version__",
    "allow_waiting",
    "as_completed",
    "chain",
    "chord",
    "cron",
    "current_task",
    "every",
    "group",
    "once",
    "signature",
]
