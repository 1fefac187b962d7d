"""What schemathesis is to check besides: loaded by it, from SCHEMATHESIS_HOOKS."""

import schemathesis


@schemathesis.check
def what_is_bad_in_a_post_is_named(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A body that does not fit the document is never taken without a word."""
    if case.meta is None or case.operation.definition.raw.get("operationId") != "postEvents":
        return
    of_body = [info for place, info in case.meta.components.items() if place.value == "body"]
    if response.status_code in (200, 207) and any(info.mode.is_negative for info in of_body):
        assert response.json().get("errors"), "a body against the schema was taken in silence"
