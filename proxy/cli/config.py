"""``outlit-proxy config``: what the settings are, and what they may be."""

import json
from pathlib import Path

import click

from proxy.cli.client import Failed
from proxy.cli.options import settings_options
from proxy.settings import Settings, toml_text


@click.group()
def config() -> None:
    """Look at the settings, or begin with a file of them.

    \b
    outlit-proxy config init
    outlit-proxy config show --config outlit-proxy.toml --origin
    outlit-proxy config schema > outlit-proxy.schema.json
    """  # noqa: D301  # click's mark for "as it stands"


@config.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("outlit-proxy.toml"),
    show_default=True,
    metavar="FILE",
    help="Where to write it.",
)
@click.option("--stdout", is_flag=True, help="Print it instead.")
def init(*, output: Path, stdout: bool) -> None:
    """Write a commented file of all settings, each with its default. Never overwrites one.

    As it is, it changes nothing: take the # before a setting away to change it.

    \b
    outlit-proxy config init
    outlit-proxy config init --output /etc/outlit-proxy/outlit-proxy.toml
    outlit-proxy config init --stdout | less
    """  # noqa: D301  # click's mark for "as it stands"
    from proxy.settings.example import example

    if stdout:
        click.echo(example(), nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(example())
    except FileExistsError:
        raise Failed(
            f"{output} exists and is left as it is: move it away, or name another file with --output"
        ) from None
    except OSError as error:
        raise Failed(f"{output} cannot be written: {error.strerror}") from None
    click.echo(f"{output} is written. Now: edit it, then\n\n    outlit-proxy check --config {output}")


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of TOML.")
@settings_options
def show(*, settings: Settings, origin: bool, as_json: bool) -> None:
    """Print the settings that are in force, as TOML; secrets as ***.

    \b
    outlit-proxy config show --config outlit-proxy.toml
    outlit-proxy config show --config outlit-proxy.toml --origin
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


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, for editors and other tools that check TOML.

    \b
    outlit-proxy config schema > outlit-proxy.schema.json
    """  # noqa: D301  # click's mark for "as it stands"
    from proxy.settings.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
