"""What schemathesis is to check besides: loaded by it, from SCHEMATHESIS_HOOKS."""

import re
from pathlib import Path

import jsonschema_rs
import schemathesis
import yaml

DOCUMENT = yaml.safe_load((Path(__file__).parents[2] / "proxy" / "openapi.yaml").read_text(encoding="utf-8"))
OWN = jsonschema_rs.validator_for(
    {"$ref": "#/components/schemas/GatewayError", "components": DOCUMENT["components"]}
)


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


@schemathesis.check
def what_the_gateway_says_itself_is_in_its_own_shape(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Its codes stand under their statuses; by the schema alone its answers could be Outlit's."""
    if "proxy-status" not in response.headers:
        return
    said = response.json()
    assert OWN.is_valid(said), f"no answer of the gateway's own: {said}"
    answer = case.operation.definition.raw["responses"][str(response.status_code)]
    while "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    assert said["code"] in re.findall(r"`([a-z_]+)`", answer["description"]), "a code under another status"
