"""``outlit-proxy tap``: samples of events as they pass, hardly more of each than what became of it."""

import click

from proxy.cli.client import Failed, printable
from proxy.cli.operations import Operations, operations_options
from proxy.cli.terminal import as_json, counted
from proxy.ledger import Sampled
from proxy.tap import MAX_EVERY


@click.command(short_help="Show samples of events as they pass.")
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice([str(outcome) for outcome in Sampled]),
    multiple=True,
    help="Only events to which this happens; may be given several times.  [default: all]",
)
@click.option("--key", metavar="PK", help="Only those of this public key.")
@click.option(
    "--every", type=click.IntRange(1, MAX_EVERY), metavar="N", help="Only every n-th event.  [default: 1]"
)
@click.option(
    "--limit", type=click.IntRange(1, MAX_EVERY), metavar="N", help="End after so many.  [default: never]"
)
@click.option("--json", "in_json", is_flag=True, help="A line of JSON each, for a script.")
@operations_options
def tap(
    *,
    operations: Operations,
    outcomes: tuple[str, ...],
    key: str | None,
    every: int | None,
    limit: int | None,
    in_json: bool,
) -> None:
    """Show samples of events, as they are accepted, refused, delivered or given up, until Ctrl-C.

    At most 50 a second; what is beyond is counted, and slows down nothing. Of an event its type, name and
    uuid are shown: no properties, addresses or identities. With several replicas, of the one that is asked.

    \b
    outlit-proxy tap
    outlit-proxy tap --outcome deferred
    outlit-proxy tap --outcome rejected --outcome dead --key pk_abc
    outlit-proxy tap --every 100 --limit 20 --json | jq -r .type
    """  # noqa: D301  # click's mark for "as it stands"
    query = {"outcome": ",".join(outcomes) or None, "key": key, "every": every, "limit": limit}
    shown = not_shown = 0
    why = "is the proxy being stopped?"
    try:
        for line in operations.stream("/tap", query):
            if "ended" in line:
                why = printable(str(line["ended"]))
                break
            missed = line.get("not_shown")
            shown += missed is None
            not_shown += missed or 0
            if in_json:
                click.echo(as_json(line))
            elif missed is None:
                click.echo(_text(line))
            elif missed:
                click.echo(f"({counted(missed, 'event')} not shown)", err=True)
    except KeyboardInterrupt:
        click.echo(f"{counted(shown, 'event')} shown, {not_shown:,} not shown", err=True)
        return
    if limit is None or shown < limit:
        raise Failed(f"{operations.url} has ended it: {why}")


def _text(sample: dict[str, str | None]) -> str:
    reason = ", ".join(filter(None, (sample["reason"], sample["detail"])))
    what = " ".join(filter(None, (sample["type"], sample["event_name"])))
    said = (
        f"{sample['at']}  {sample['outcome']:<9}  {sample['key']:<16}  {sample['uuid'] or '-':<36}"
        f"  {what or '-'}{f'  ({reason})' if reason else ''}"
    )
    return printable(said)
