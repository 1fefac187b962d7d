"""``outlit-proxy config``: what the settings are."""

import json

import click

from proxy.cli.options import settings_options
from proxy.settings import Settings, toml_text


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of TOML.")
@settings_options
def show(*, settings: Settings, origin: bool, as_json: bool) -> None:
    """Print the settings that are in force, as TOML; secrets as ***.

    \b
    outlit-proxy config show --config proxy.toml --origin
    """  # noqa: D301  # click's mark for "as it stands"
    values = settings.effective()
    if as_json:
        shown = (
            {name: {"value": value, "origin": settings.origins[name]} for name, value in values.items()}
            if origin
            else values
        )
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for name, value in values.items():
        # TOML has no word for what is not set.
        line = f"# {name} is not set" if value is None else f"{name} = {toml_text(value)}"
        click.echo(f"{line}  # {settings.origins[name]}" if origin else line)
