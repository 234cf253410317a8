"""How outcomes become bytes for a store: Celery's document, compressed, within a size."""

from __future__ import annotations

from typing import Any

from amqtask.errors import ResultTooLarge
from amqtask.message import accepted, decode_meta, encode_meta
from amqtask.message.compression import compress
from amqtask.message.results import ResultMeta, compressed, decompressed
from amqtask.message.serializers import JSON
from amqtask.settings import Settings


class Codec:
    """Writes and reads the documents of results.

    Args:
        settings: Compression, sizes and what is accepted.
        binary: False for a store that holds text only: nothing is compressed.

    Raises:
        ConfigurationError: No such compression, or its package is not installed.

    Threads: safe from any thread.
    """

    def __init__(self, settings: Settings, *, binary: bool = True) -> None:
        self._compression = settings.result_compression if binary else None
        self._over = settings.compress_over
        self._largest = settings.result_max_size
        self._max_decoded_size = settings.max_decoded_size
        self._accepted = accepted(settings.accept_content)
        self._accepted_results = {JSON.content_type: JSON, **self._accepted}
        if self._compression is not None:
            compress(self._compression, b"")  # a wrong name shows at the start, not at a result

    def encode(self, meta: ResultMeta, largest: int | None = None) -> bytes:
        """Return the document of a result.

        Args:
            largest: Bytes of the largest record of the store, if that is less.

        Raises:
            EncodeError: The result does not serialise.
            ResultTooLarge: It is over ``result_max_size``, or over what the store holds.
        """
        data = self._packed(encode_meta(meta))
        limit, what = self._largest, "result_max_size is"
        if largest is not None and largest < limit:
            limit, what = largest, "its store holds"
        if len(data) > limit:
            raise ResultTooLarge(
                f"result (id {meta.task_id}) has {len(data)} bytes, {what} {limit}",
                hint="store the data elsewhere and return a reference to it",
            )
        return data

    def decode(self, data: bytes) -> ResultMeta:
        """Return what a document says.

        Raises:
            MessageError: It cannot be read; the text says why.
        """
        return decode_meta(
            data,
            JSON.content_type,
            self._accepted_results,
            max_decoded_size=self._max_decoded_size,
        )

    def encode_value(self, value: Any) -> bytes:
        """Return one part of a result, for stores that keep the parts apart.

        Raises:
            EncodeError: It does not serialise.
        """
        return self._packed(JSON.dumps(value))

    def decode_value(self, data: bytes) -> Any:
        """Return one part of a result.

        Raises:
            MessageError: It cannot be read.
        """
        return JSON.loads(decompressed(data, self._max_decoded_size))

    def _packed(self, data: bytes) -> bytes:
        if self._compression is not None and len(data) > self._over:
            return compressed(data, self._compression)
        return data
