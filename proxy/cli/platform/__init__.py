"""``outlit-proxy platform``: Outlit's Platform API, by way of the proxy that runs and that has the key."""

from dataclasses import replace

import click

from proxy.cli.client import Failed
from proxy.cli.operations import Operations, object_of, operations_options
from proxy.cli.options import Seconds
from proxy.cli.platform.calling import RunningGateway, gateway_options
from proxy.cli.platform.facts import integration_lines, valid_line
from proxy.cli.platform.given import files_completed, json_object
from proxy.cli.platform.refusals import ANOTHER_KEY, MAY_BE_DONE
from proxy.cli.platform.showing import write
from proxy.cli.terminal import as_json, counted

_json_option = click.option("--json", "in_json", is_flag=True, help="What Outlit answers, as it came.")
_validity_option = click.option(
    "--json",
    "in_json",
    is_flag=True,
    help='What Outlit answers; with "valid": null and the status where that could not be told.',
)


@click.group(short_help="Outlit's Platform API: validate, tool, integrations, retry.")
def platform() -> None:
    """Outlit's Platform API, by way of the proxy that runs: it has the secret key, gateway.api_key.

    These commands send the proxy its ops.token; the key does not leave the proxy but for Outlit.

    \b
    outlit-proxy platform validate
    outlit-proxy platform tool outlit_list_customers --input '{"limit": 3}'
    """  # noqa: D301  # click's mark for "as it stands"


@platform.command()
@_validity_option
@gateway_options
def validate(*, gateway: RunningGateway, in_json: bool) -> None:
    """Ask whether Outlit takes the proxy's gateway.api_key, and what it may do.

    Exits 0 only if it is valid. Where that could not be told just now, it says so: that means nothing against
    the key. Outlit is asked once in 60 s; in 10 s while it refuses the key.

    \b
    outlit-proxy platform validate
    outlit-proxy platform validate --json | jq .authorization.grants
    """  # noqa: D301  # click's mark, as above
    with gateway.asked("POST", "validate-api-key") as answer:
        body = b"".join(answer.parts)
    said = object_of(body) or {}
    is_valid = answer.status == 200 and said.get("valid") is True
    refusal = None if is_valid else gateway.refusal(answer, body)
    is_refused = (
        refusal is not None
        and not refusal.is_own
        and refusal.is_json
        and (answer.status == 401 or (answer.status == 200 and said.get("valid") is False))
    )
    if in_json and (is_valid or is_refused):
        write([body], answer.headers, in_json=True)
    elif in_json:
        click.echo(as_json({**said, "valid": None, "status": answer.status}))
    elif is_valid:
        click.echo(valid_line(said))
    if refusal is None:
        return
    if is_refused:
        raise Failed(f"Outlit refuses gateway.api_key ({refusal.message or answer.status}): {ANOTHER_KEY}")
    if refusal.is_own and refusal.status < 500:
        raise Failed(gateway.in_words(refusal))
    raise Failed(f"whether gateway.api_key is valid could not be told: {gateway.in_words(refusal)}")


@platform.command()
@click.argument("name")
@click.option(
    "--input",
    "given",
    default="{}",
    callback=json_object,
    shell_complete=files_completed,
    show_default=True,
    metavar="JSON",
    help="What the tool is given, a JSON object; @FILE: what stands in the file; -: in stdin.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(0.1, 3600),
    metavar="SECONDS",
    help="How long its answer is waited for.  [default: gateway.timeout, and 5 s]",
)
@_json_option
@gateway_options
def tool(*, gateway: RunningGateway, name: str, given: bytes, timeout_s: float | None, in_json: bool) -> None:
    """Call a tool, and write what it answers.

    As it came, in a pipe or a file; indented on a terminal. What Outlit refuses is one line on stderr, with
    --json its answer on stdout, too, and the exit code is 1. A call may count towards the plan.

    \b
    outlit-proxy platform tool outlit_list_customers
    outlit-proxy platform tool outlit_list_customers --input '{"limit": 3}' | jq .
    outlit-proxy platform tool outlit_query --input @query.json > answer.json
    """  # noqa: D301  # click's mark, as above
    if not name:
        raise click.BadParameter("is empty.", param_hint="'NAME'")
    if timeout_s is not None:
        gateway = replace(gateway, timeout_s=timeout_s)
    body = b'{"tool": %b, "input": %b}' % (as_json(name).encode(), given)
    try:
        with gateway.asked("POST", "tools/call", body=body, changes_nothing=False) as answer:
            if not answer.is_success:
                gateway.refuse(answer, changes_nothing=False, in_json=in_json)
            write(answer.parts, answer.headers, in_json=in_json)
    except KeyboardInterrupt:  # here, around all of it: it comes between any two lines
        raise Failed(f"interrupted before the answer was whole; {MAY_BE_DONE}") from None


@platform.command()
@click.option("--connected", is_flag=True, help="Only those that are connected.")
@_json_option
@gateway_options
def integrations(*, gateway: RunningGateway, connected: bool, in_json: bool) -> None:
    """List the integrations, when data last came of each, and how it fares.

    \b
    outlit-proxy platform integrations --connected
    outlit-proxy platform integrations --json | jq -r '.items[].name'
    """  # noqa: D301  # click's mark, as above
    with gateway.asked("GET", "integrations", {"connectedOnly": True if connected else None}) as answer:
        if not answer.is_success:
            gateway.refuse(answer, in_json=in_json)
        if in_json:
            write(answer.parts, answer.headers, in_json=True)
            return
        body = b"".join(answer.parts)
    items = (object_of(body) or {}).get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Failed("Outlit answered something else than a list of integrations: --json shows it")
    for line in integration_lines(items):
        click.echo(line)
    click.echo(counted(len(items), "integration"))


@platform.command()
@click.option("--json", "in_json", is_flag=True, help="One JSON object, for a script.")
@operations_options
def retry(*, operations: Operations, in_json: bool) -> None:
    """Have the proxy forget what of a plan is used up, and ask Outlit again with the next call.

    For when the plan was upgraded: until its allowance is back, such calls are answered without asking.
    Each replica remembers for itself: ask each by --ops-url.

    \b
    outlit-proxy platform retry
    """  # noqa: D301  # click's mark, as above
    answer = operations.post("/gateway/retry")
    if in_json:
        click.echo(as_json(answer))
    elif answer["forgotten"]:
        click.echo(f"{counted(answer['forgotten'], 'plan refusal')} forgotten: such calls reach Outlit again")
    else:
        click.echo("no plan refusal is remembered: every call reaches Outlit")
