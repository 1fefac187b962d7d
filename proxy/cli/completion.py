"""``outlit-proxy completion``: completing commands and options in a shell."""

import click
from click.shell_completion import get_completion_class

_PROGRAM = "outlit-proxy"
_VARIABLE = "_OUTLIT_PROXY_COMPLETE"


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print the script with which a shell completes commands and options (bash from 4.4 on).

    Put one of these into the shell's start-up file, or run it:

    \b
    eval "$(outlit-proxy completion bash)"       # ~/.bashrc
    eval "$(outlit-proxy completion zsh)"        # ~/.zshrc, behind compinit
    outlit-proxy completion fish | source        # ~/.config/fish/config.fish
    """  # noqa: D301  # click's mark for "as it stands"
    scripts = get_completion_class(shell)
    if scripts is None:
        raise click.ClickException(f"{shell} cannot be helped")
    click.echo(scripts(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())
