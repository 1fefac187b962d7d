"""``outlit-proxy erase``: take out of the buffer all that is held of a person."""

import click

from proxy.cli.client import Failed
from proxy.cli.operations import LONG_TIMEOUT_S, Operations, operations_options
from proxy.cli.terminal import as_json, counted, sure


@click.command(short_help="Take a person out of the buffer, for good.")
@click.option("--visitor", metavar="UUID", help="Everything of this visitor.")
@click.option("--email", metavar="ADDRESS", help="Every event that names this address, in any case.")
@click.option("--user-id", metavar="ID", help="Every event that names this user.")
@click.option("--key", metavar="PK", help="Of this public key alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object, for a script.")
@operations_options
def erase(
    *,
    operations: Operations,
    visitor: str | None,
    email: str | None,
    user_id: str | None,
    key: str | None,
    yes: bool,
    in_json: bool,
) -> None:
    """Take every held event and dead letter of one person out of the buffer, for good.

    What was delivered before is Outlit's to erase. Events that name a person are not all that a visitor left:
    erase by visitor what came before they said who they are. Waits for deliveries under way, as long as
    delivery.lease; exits 1 where one kept some of it all the while.

    \b
    outlit-proxy erase --visitor 0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b
    outlit-proxy erase --email ann@example.com --key pk_abc
    """  # noqa: D301  # click's mark for "as it stands"
    whom = {"visitor": visitor, "email": email, "user_id": user_id}
    given = {name: value for name, value in whom.items() if value is not None}
    if len(given) != 1:
        raise click.UsageError("give one of --visitor, --email and --user-id.")
    sure("Erase everything that is held of this person? It cannot be undone.", yes=yes)
    body = given if key is None else {**given, "key": key}
    answer = operations.post("/erase", body=body, timeout_s=LONG_TIMEOUT_S)
    if in_json:
        click.echo(as_json(answer))
    else:
        held, dead = answer["erased"]["held"], answer["erased"]["dead"]
        click.echo(f"{counted(held, 'held event')} and {counted(dead, 'dead letter')} erased")
    if answer["leased"]:
        queues = counted(answer["leased"], "queue")
        raise Failed(f"{queues} with events of theirs stayed in delivery all the while: ask again")
