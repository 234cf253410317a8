"""The language of messages: what is on the wire, as pure data and functions.

No I/O here, so every rule of the protocol can be tested and read by itself.
"""

from __future__ import annotations

from amqtask.message.compression import compress, decompress
from amqtask.message.model import NO_EMBED, Call, Embed, HeaderValue, Message
from amqtask.message.protocol import (
    clean_headers,
    decode,
    encode,
    park,
    resend,
    task_name,
    user_headers,
)
from amqtask.message.results import (
    EXCEPTION_STATES,
    READY_STATES,
    RemoteTraceback,
    ResultMeta,
    decode_exception,
    decode_meta,
    encode_exception,
    encode_meta,
)
from amqtask.message.serializers import JSON, Serializer, accepted, serializer

__all__ = [
    "EXCEPTION_STATES",
    "JSON",
    "NO_EMBED",
    "READY_STATES",
    "Call",
    "Embed",
    "HeaderValue",
    "Message",
    "RemoteTraceback",
    "ResultMeta",
    "Serializer",
    "accepted",
    "clean_headers",
    "compress",
    "decode",
    "decode_exception",
    "decode_meta",
    "decompress",
    "encode",
    "encode_exception",
    "encode_meta",
    "park",
    "resend",
    "serializer",
    "task_name",
    "user_headers",
]
