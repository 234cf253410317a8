"""``amqtask graph``: a workflow's drawing, as text."""

from __future__ import annotations

import click

from amqtask.discovery import find_object
from amqtask.errors import ConfigurationError
from amqtask.workflow.builder import Workflow
from amqtask.workflow.canvas import Canvas
from amqtask.workflow.drawing import Graph, graph_of
from amqtask.workflow.shape import normal


def print_graph(where: str, form: str) -> None:
    """Print the drawing of a workflow or a signature.

    Args:
        where: ``module:attribute`` or ``file.py:attribute``.

    Raises:
        AppNotFound: There is nothing of that name.
        ConfigurationError: What is there is neither.
    """
    graph = _graph(where)
    click.echo(graph.mermaid() if form == "mermaid" else graph.dot(), nl=False)


def _graph(where: str) -> Graph:
    found = find_object(where)
    if isinstance(found, Workflow):
        return found.graph()
    if isinstance(found, Canvas):
        return graph_of(normal(found._node), where.rpartition(":")[2])
    raise ConfigurationError(
        f"{where!r} is of type {type(found).__name__}, neither a Workflow nor a signature",
        hint="keep what is to be drawn in a module-level variable",
    )
