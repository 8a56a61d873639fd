"""Pages made from the program itself: commands, settings, and the guideline of the grades."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ssra_engine.cli import main
from ssra_engine.config import Config
from ssra_engine.export.guideline import guideline


class Commands(SphinxDirective):
    """A section for every command, with what its --help prints."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        sections: list[nodes.Node] = []
        for path, command in _walk(main, ("ssra-engine",)):
            name = " ".join(path)
            context = click.Context(command, info_name=name, max_content_width=100)
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title(text=name)
            section += nodes.literal_block(text=command.get_help(context), language="text")
            sections.append(section)
        return sections


class Settings(SphinxDirective):
    """A section for every part of the configuration, with its settings as a list."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        return list(_sections(Config, "", "At the top"))


class Guideline(SphinxDirective):
    """The guideline that `export --format dataset` writes, for four grades."""

    def run(self) -> list[nodes.Node]:
        """Its text below its heading."""
        body = guideline(range(4)).split("\n", 1)[1]
        return self.parse_text_to_nodes(body)


def _walk(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            child = command.commands[name]
            yield from _walk(child, (*path, name))


def _sections(model: type[BaseModel], prefix: str, title: str) -> Iterator[nodes.Node]:
    inner = {
        name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    section = nodes.section(ids=[nodes.make_id(title)], names=[title])
    section += nodes.title(text=title)
    section += nodes.paragraph(text=(model.__doc__ or "").split("\n")[0])
    listed = nodes.definition_list()
    for name, field in model.model_fields.items():
        if name not in inner:
            listed += _setting(f"{prefix}{name}", field.default, field.description)
    section += listed
    yield section
    for name, part in inner.items():
        yield from _sections(part, f"{prefix}{name}.", f"{prefix}{name}")


def _setting(name: str, default: Any, description: str | None) -> nodes.Node:
    term = nodes.term("", "", nodes.literal(text=name))
    said = "" if description is None else f"{description[0].upper()}{description[1:]}. "
    value = nodes.literal(text="null" if default is None else str(default))
    told = nodes.paragraph("", "", nodes.Text(f"{said}Default "), value, nodes.Text("."))
    return nodes.definition_list_item("", term, nodes.definition("", told))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("commands", Commands)
    app.add_directive("settings", Settings)
    app.add_directive("guideline", Guideline)
    return {"parallel_read_safe": True}
