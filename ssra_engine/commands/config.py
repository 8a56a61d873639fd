"""`ssra-engine config`."""

from __future__ import annotations

from pathlib import Path

import click

from ssra_engine.commands.options import config_option

__all__ = ["config"]


@click.group(short_help="The settings: all of them, and a schema for editors.")
def config() -> None:
    """The settings that `build` and `run` take with --config.

    \b
    Examples:
      ssra-engine config show > my.yaml
      ssra-engine config schema > ssra-engine.schema.json
    """


@config.command(short_help="Every setting and its value, as YAML.")
@config_option
def show(config: Path | None) -> None:
    """Print every setting: its default, or what the file sets.

    \b
    Example:
      ssra-engine config show --config my.yaml
    """
    from ssra_engine.config import load_config

    click.echo(load_config(config).to_yaml(), nl=False)


@config.command(short_help="A JSON Schema of the settings.")
def schema() -> None:
    """Print a JSON Schema, with which an editor completes and checks a file of settings.

    With the YAML language server, as in VS Code, the first line of the file names it:

    \b
      # yaml-language-server: $schema=ssra-engine.schema.json

    \b
    Example:
      ssra-engine config schema > ssra-engine.schema.json
    """
    from ssra_engine.commands.printing import print_json
    from ssra_engine.config import Config

    dialect = "https://json-schema.org/draft/2020-12/schema"
    print_json({"$schema": dialect, **Config.model_json_schema(), "title": "ssra-engine settings"})
