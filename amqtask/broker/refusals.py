"""What the broker refuses, in the codes and words of RabbitMQ.

Clients tell errors apart by code, and people search the web for the text, so
both are RabbitMQ's to the letter.
"""

from __future__ import annotations

#: Reply codes and their names; those in `_HARD` end the connection, the others one channel.
_NAMES = {
    311: "CONTENT_TOO_LARGE",
    312: "NO_ROUTE",
    313: "NO_CONSUMERS",
    320: "CONNECTION_FORCED",
    402: "INVALID_PATH",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}
_HARD = {320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541}
#: Octets that a reply text may have: its length is one octet.
_LONGEST = 255


class Refusal(Exception):
    """A client asked for something it does not get.

    Args:
        code: A reply code of AMQP 0-9-1, such as 404.
        explanation: What RabbitMQ says after the code's name; None for the name alone.
        method: Class and method id of what was refused, 0 where it was no method.

    Attributes:
        text: The whole reply text.
        hard: Whether it ends the connection rather than one channel.
    """

    def __init__(self, code: int, explanation: str | None = None, *, method: int = 0) -> None:
        name = _NAMES[code]
        self.code = code
        self.text = limited(name if explanation is None else f"{name} - {explanation}")
        self.hard = code in _HARD
        self.method = method
        super().__init__(self.text)


class Hangup(Exception):
    """The socket ends now, after what is said in ``last``: RabbitMQ does so over gross errors."""

    def __init__(self, last: bytes = b"") -> None:
        self.last = last
        super().__init__(last)


def limited(text: str) -> str:
    """Cut a reply text to what fits a short string."""
    octets = text.encode("utf-8", "surrogateescape")
    return octets[:_LONGEST].decode("utf-8", "ignore") if len(octets) > _LONGEST else text


def resource(kind: str, name: str, vhost: str) -> str:
    """Name an entity as RabbitMQ's texts do: ``queue 'q' in vhost '/'``."""
    return f"{kind} '{name}' in vhost '{vhost}'"


def not_found(kind: str, name: str, vhost: str) -> Refusal:
    """Return the refusal for an entity that is not there."""
    return Refusal(404, f"no {resource(kind, name, vhost)}")


def snippet(payload: bytes) -> str:
    """Show the beginning of a payload as Erlang does."""
    word = "all" if len(payload) <= 16 else "first 16"
    return f"{word} octets = {_erlang(payload[:16])}"


def _erlang(octets: bytes) -> str:
    # Erlang shows octets as a string when all of them are letters
    if octets and all(32 <= each < 127 for each in octets):
        return '<<"{}">>'.format(octets.decode().replace('"', '\\"'))
    return f"<<{','.join(map(str, octets))}>>"


def cannot_decode(payload: bytes) -> Refusal:
    """Return the refusal of a method whose fields are broken."""
    shown = ",".join(map(str, payload[4:_LONGEST]))
    return Refusal(501, f"cannot decode <<{shown}>>", method=int.from_bytes(payload[:4], "big"))


def frame_error(kind: int, payload: bytes, what: str) -> Refusal:
    """Return the refusal of a frame that is none."""
    return Refusal(501, f"type {kind}, {snippet(payload)}: {what}")
