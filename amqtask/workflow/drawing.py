"""Drawings of workflows as text: for Mermaid, which Markdown pages show, and for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amqtask.message.signature import Chain, Chord, Group, Node, Step


@dataclass(frozen=True, slots=True)
class Graph:
    """Calls, and which follow which.

    Attributes:
        name: What the whole is called.
        nodes: Each call's key, and what is written on it.
        edges: Keys of a call and of one that follows it.
        added: Edges that nobody asked for, which are drawn dashed.
    """

    name: str
    nodes: tuple[tuple[str, str], ...]
    edges: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...] = ()

    def mermaid(self) -> str:
        """Return the text of a Mermaid flowchart."""
        keys = {key: f"n{number}" for number, (key, _) in enumerate(self.nodes)}
        lines = ["flowchart TD"]
        lines += [f'    {keys[key]}["{_mermaid(label)}"]' for key, label in self.nodes]
        lines += [f"    {keys[first]} --> {keys[second]}" for first, second in self.edges]
        lines += [f"    {keys[first]} -.-> {keys[second]}" for first, second in self.added]
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """Return the text of a graph in Graphviz's language."""
        lines = [f"digraph {_dot(self.name)} {{", "    node [shape=box];"]
        lines += [f"    {_dot(key)} [label={_dot(label)}];" for key, label in self.nodes]
        lines += [f"    {_dot(first)} -> {_dot(second)};" for first, second in self.edges]
        lines += [
            f"    {_dot(first)} -> {_dot(second)} [style=dashed];" for first, second in self.added
        ]
        return "\n".join([*lines, "}"]) + "\n"


def graph_of(node: Node, name: str) -> Graph:
    """Return the graph of chains, groups and chords; callbacks are not in it."""
    drawn = _Drawn()
    drawn.add(node, ())
    return Graph(name, tuple(drawn.nodes), tuple(drawn.edges))


class _Drawn:
    def __init__(self) -> None:
        self.nodes: list[tuple[str, str]] = []
        self.edges: list[tuple[str, str]] = []

    def add(self, node: Node, before: tuple[str, ...]) -> tuple[str, ...]:
        """Draw a node after others, and return what ends it."""
        match node:
            case Step():
                key = f"{len(self.nodes)}"
                self.nodes.append((key, node.task))
                self.edges += [(each, key) for each in before]
                return (key,)
            case Chain():
                for step in node.steps:
                    before = self.add(step, before)
                return before
            case Group():
                return tuple(self._members(node, before)) or before
            case Chord():
                return self.add(node.body, self.add(node.header, before))
        raise AssertionError(f"{node!r} is no signature")

    def _members(self, group: Group, before: tuple[str, ...]) -> Iterator[str]:
        for member in group.members:
            yield from self.add(member, before)


def _mermaid(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
