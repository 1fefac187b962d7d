"""`proxy/openapi.yaml` against the code, and against the running program."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema_rs
import msgspec
import pytest
import schemathesis
import yaml

from proxy import __version__
from proxy.buffer import MAX_BATCHES, MAX_LETTERS
from proxy.gateway.codes import KINDS as OF_CODES
from proxy.gateway.paths import METHODS as PASSED_ON
from proxy.gateway.paths import PREFIX, Place, read_target
from proxy.ledger import Answered, Dead, Pause, PlatformRoute, Sampled
from proxy.ledger import OwnCode as GatewayCode
from proxy.ops.symptoms import Symptom
from proxy.settings import Settings
from proxy.wire.answers import STATUS, Code
from proxy.wire.envelope import CustomerIdentity, UserIdentity
from proxy.wire.events import KINDS, Event, Utm
from tests.docs.listeners import routes
from tests.programs import OPS_TOKEN, Proxy, Sandbox, http, running_proxy, running_sandbox, wait_for

HERE = Path(__file__).parent
FILE = HERE.parents[1] / "proxy" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
EVENTS = "/api/i/v1/{publicKey}/events"
METHODS = ("get", "post", "options", "put", "patch", "delete")
OF_THE_GATEWAY = {path: item for path, item in DOCUMENT["paths"].items() if re.match("/api/(?!i/)", path)}
"""The Platform API's, as Outlit has them; their servers say below what they are here."""
PREFIXES = (PREFIX, "")
API_KEY = "ok_of-the-tests-of-the-document-0123456789"
KEY = "pk_openapi"
AUTHORISED = {"Authorization": f"Bearer {OPS_TOKEN}"}
VISITOR = "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b"


def test_the_document_is_of_this_version():
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == __version__


def test_its_routes_are_those_of_the_listeners():
    there = {(method.lower(), path) for method, path in routes()}
    [prefix] = Settings().front.path_prefixes
    there |= {(method, f"{prefix}/{{publicKey}}/events") for method in ("post", "options")}
    named = {
        (method, path)
        for path, item in DOCUMENT["paths"].items()
        if path not in OF_THE_GATEWAY
        for method in METHODS
        if method in item
    }
    assert named == there


def test_the_gateway_reads_its_paths_as_they_stand_there():
    seen = set()
    for path, item in OF_THE_GATEWAY.items():
        for prefix in PREFIXES:
            place = read_target(prefix + path.replace("{path}", "gmail"))
            assert isinstance(place, Place), path
            assert {method.upper() for method in METHODS if method in item} == set(place.methods)
            seen.add(place.route)
    assert seen == set(PlatformRoute)
    assert {method.upper() for method in METHODS if method in OF_THE_GATEWAY["/api/{path}"]} == set(PASSED_ON)


def test_a_rest_of_a_path_that_fits_the_document_is_spelt_plainly_enough():
    fits = re.compile(SCHEMAS["PlainPath"]["pattern"])
    for rest in ("gmail", "a", "x.y~z_1-2", "-"):
        assert fits.search(rest)
        assert isinstance(read_target(f"/api/{rest}"), Place)
    for rest in ("..", ".", "", "a/../b", "a%2fb", "a\\b", "a//b"):
        assert not fits.search(rest)
        assert not isinstance(read_target(f"/api/x/{rest}/y"), Place)


def test_it_is_as_openapi_asks():
    schemathesis.openapi.from_path(str(FILE)).validate()


def test_every_name_in_it_is_a_text():
    """YAML takes `off`, `no` and `on` for booleans."""
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_each_path_says_on_which_listener_it_is():
    settings = Settings()
    for path, item in DOCUMENT["paths"].items():
        listen = settings.front.listen if path == EVENTS else settings.ops.listen
        bases = PREFIXES if path in OF_THE_GATEWAY else [""]
        assert item["servers"] == [{"url": f"http://{listen}{base}"} for base in bases], path
    assert len(DOCUMENT["servers"]) == 2


def test_its_codes_are_the_ones_that_there_are_each_under_its_status():
    assert SCHEMAS["Code"]["enum"] == list(Code)
    answers = DOCUMENT["paths"][EVENTS]["post"]["responses"]
    named = {
        Code(word): int(status)
        for status, answer in answers.items()
        if int(status) >= 400
        for word in re.findall(r"`([a-z_]+)`", answer["description"])
    }
    assert named == STATUS


def test_the_gateways_codes_are_the_ones_that_there_are_each_under_its_status():
    assert SCHEMAS["GatewayCode"]["enum"] == list(GatewayCode)
    there = {code: kind.status for code, kind in OF_CODES.items()}
    for path, item in OF_THE_GATEWAY.items():
        for operation in (item[method] for method in METHODS if method in item):
            assert _own_codes(operation["responses"]) == there, path


def _own_codes(answers: dict[str, Any]) -> dict[GatewayCode, int]:
    return {
        GatewayCode(word): int(status)
        for status, answer in answers.items()
        for word in re.findall(r"`([a-z_]+)`", _resolved(answer)["description"])
        if word in SCHEMAS["GatewayCode"]["enum"]
    }


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = DOCUMENT["components"]["responses"]
    return named[part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def test_its_enumerations_are_the_ones_of_the_code():
    assert SCHEMAS["Answered"]["enum"] == list(Answered)
    assert SCHEMAS["DeadReason"]["enum"] == list(Dead)
    assert SCHEMAS["Pause"]["enum"] == list(Pause)
    assert SCHEMAS["Sampled"]["enum"] == list(Sampled)
    assert SCHEMAS["Symptom"]["enum"] == list(Symptom)


def test_its_bounds_are_the_ones_of_the_code():
    assert SCHEMAS["Envelope"]["properties"]["events"]["maxItems"] == Settings().front.max_events
    limits = {
        path: parameter["schema"]["maximum"]
        for path, item in DOCUMENT["paths"].items()
        for parameter in item.get("get", {}).get("parameters", ())
        if parameter.get("name") == "limit"
    }
    assert limits["/dead"] == MAX_LETTERS
    assert limits["/ambiguous"] == MAX_BATCHES


def _properties(schema: dict[str, Any]) -> set[str]:
    return set(schema.get("properties", ())).union(*map(_properties, schema.get("allOf", ())))


def _fields(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_type_of_event_has_the_fields_that_are_read(kind: type[Event]):
    schema = SCHEMAS[kind.__name__]
    common = _fields(Event) | {"type"}
    assert _properties(SCHEMAS["AnyEvent"]) == common
    assert _properties(schema) | common == _fields(kind) | {"type"}
    required = {
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.default is msgspec.NODEFAULT and field.name not in ("url", "path")
    }
    assert required == {name for part in schema["allOf"] for name in part.get("required", ())}


def test_the_objects_around_the_events_have_the_fields_that_are_read():
    envelope = SCHEMAS["Envelope"]["properties"]
    assert _properties(envelope["userIdentity"]) == _fields(UserIdentity)
    assert _properties(envelope["customerIdentity"]) == _fields(CustomerIdentity)
    assert _properties(SCHEMAS["AnyEvent"]["properties"]["utm"]) == _fields(Utm)


# -- against the running program -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Proxy]:
    """One that holds something of every sort that can be asked for."""
    # Generated posts come under any key.
    quota = {"OUTLIT_PROXY_FRONT_UNKNOWN_KEY_QUOTA": '{"queues": 1000000, "keys": 1000000}'}
    gateway = {"OUTLIT_PROXY_GATEWAY_API_KEY": API_KEY}
    with running_proxy(tmp_path_factory.mktemp("proxy"), sandbox, **quota, **gateway) as proxy:
        sandbox.fault("refuse", event="bad", names="paths")
        sandbox.fault("reset", event="lost", requests=1)
        for name in ("good", "bad", "lost"):
            assert _posted(proxy, name)
        wait_for("a dead letter, and a batch that may have arrived", lambda: _is_seeded(proxy))
        yield proxy


def _is_seeded(proxy: Proxy) -> bool:
    return bool(proxy.ledger()["dead"] and proxy.ambiguous())


def test_answers_that_say_something_fit_the_document(proxy: Proxy):
    """Generated requests find empty lists as a rule."""
    document = schemathesis.openapi.from_path(str(FILE))

    def fitting(path: str, *, path_parameters: Any = None, query: Any = None) -> Any:
        case = document[path]["GET"].Case(path_parameters=path_parameters or {}, query=query or {})
        answer = case.call_and_validate(base_url=proxy.ops_url, headers=AUTHORISED)
        assert answer.status_code == 200
        return answer.json()

    [letter] = fitting("/dead")["dead"]
    assert fitting("/dead", query={"full": "true"})["dead"][0]["event"]["eventName"] == "bad"
    assert fitting("/dead/{id}", path_parameters={"id": letter["id"]})["envelope"] == {"visitorId": VISITOR}
    [batch] = fitting("/ambiguous")["batches"]
    lost, *_ = batch["events"]
    assert fitting("/events/{uuid}", path_parameters={"uuid": lost})["ambiguous"]
    assert fitting("/events/{uuid}", path_parameters={"uuid": letter["uuid"]})["fate"] == "dead"
    assert fitting("/keys")["keys"] == [fitting("/keys/{key}", path_parameters={"key": KEY})]
    assert fitting("/ledger")["total"]["dead"] == 1
    assert fitting("/status")["keys"][0]["key"] == KEY


def test_answers_of_the_gateway_fit_the_document(proxy: Proxy, sandbox: Sandbox):
    document = schemathesis.openapi.from_path(str(FILE))

    def answered(path: str, method: str, token: str = OPS_TOKEN, **given: Any) -> Any:
        case = document[path][method].Case(**given)
        base = f"{proxy.ops_url}/platform" if path in OF_THE_GATEWAY else proxy.ops_url
        answer = case.call_and_validate(
            base_url=base,
            headers={"Authorization": f"Bearer {token}"},
            # That one leaves the token out by itself, and looks at what is said then.
            excluded_checks=[schemathesis.checks.ignored_auth],
        )
        said = answer.json()
        own = "proxy-status" in answer.headers
        assert own is (said.get("code") in SCHEMAS["GatewayCode"]["enum"])
        return answer.status_code, said, "cache-status" in answer.headers

    call: dict[str, Any] = {
        "body": {"tool": "outlit_list_customers", "input": {}},
        "media_type": "application/json",
    }
    valid = answered("/api/validate-api-key", "POST")
    assert valid[::2] == (200, False)
    assert answered("/api/validate-api-key", "POST") == (200, valid[1], True)
    assert answered("/api/validate-api-key", "POST", "wrong")[0] == 401
    assert answered("/api/integrations", "GET")[0] == 200
    assert answered("/api/tools/call", "POST", **call)[0] == 200
    sandbox.order_platform(
        "plan",
        code="plan_api_limit_exceeded",
        feature="api_calls",
        plan="free",
        status=402,
        reset_in_s=600,
        requests=1,
    )
    status, refused, is_remembered = answered("/api/tools/call", "POST", **call)
    assert (status, is_remembered) == (402, False)
    assert answered("/api/tools/call", "POST", **call) == (402, refused, True)
    [shown] = answered("/status", "GET")[1]["gateway"]["refused"]
    assert (shown["code"], shown["status"], shown["answered"]) == ("plan_api_limit_exceeded", 402, 1)
    assert answered("/gateway/retry", "POST")[1] == {"forgotten": 1}
    assert answered("/api/tools/call", "POST", **call)[0] == 200


def test_a_line_of_a_tap_fits_the_document(proxy: Proxy):
    fits = jsonschema_rs.validator_for(
        {"$ref": "#/components/schemas/Sample", "components": DOCUMENT["components"]}
    )
    url = f"{proxy.ops_url}/tap?limit=1&outcome=accepted"
    with ThreadPoolExecutor(1) as beside:
        tapped = beside.submit(http, url, headers=AUTHORISED)
        wait_for("a sample", lambda: _posted(proxy, "tapped") and tapped.done())
        status, line = tapped.result()
    assert status == 200
    fits.validate(json.loads(line))


def _posted(proxy: Proxy, name: str) -> bool:
    """Post an event of this name."""
    event = {
        "type": "custom",
        "eventName": name,
        "url": "https://x.example/",
        "path": "/",
        "uuid": str(uuid4()),
    }
    status, body = http(f"{proxy.url}/api/i/v1/{KEY}/events", {"visitorId": VISITOR, "events": [event]})
    return (status, json.loads(body)["processed"]) == (200, 1)


def _schemathesis(folder: Path, url: str, *arguments: str) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", str(HERE / "schemathesis.toml"), "run", str(FILE), "--url", url),
            *("--warnings", "off", "--continue-on-failure", "--no-color", *arguments),
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_checks", "PYTHONPATH": str(HERE)},
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=1800,
    )
    said = "\n".join(line[:500] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, said
    assert "No issues found" in said


OF_THE_FRONT = ("--include-path", EVENTS)
OF_GATEWAY = ("--include-path-regex", "^/api/(?!i/)", "--header", f"Authorization: Bearer {OPS_TOKEN}")
# Of the gateway's routes one is enough for their other spelling, at the listener's root. A tap ends when its
# reader does, and schemathesis reads to the end.
OF_OPERATIONS = (
    "--exclude-path",
    EVENTS,
    "--exclude-path",
    "/tap",
    "--exclude-path-regex",
    "^/api/(?!i/|tools/)",
    "--header",
    f"Authorization: Bearer {OPS_TOKEN}",
)
SHORT = ("--seed", "1", "--max-examples", "3", "--phases", "examples,coverage,fuzzing")
LONG = ("--max-examples", "1000")


def test_generated_posts_are_answered_as_the_document_says(proxy: Proxy, tmp_path: Path):
    _schemathesis(tmp_path, proxy.url, *OF_THE_FRONT, *SHORT)


def test_generated_requests_of_operators_are_answered_as_the_document_says(proxy: Proxy, tmp_path: Path):
    _schemathesis(tmp_path, proxy.ops_url, *OF_OPERATIONS, *SHORT)


def test_generated_calls_of_the_gateway_are_answered_as_the_document_says(proxy: Proxy, tmp_path: Path):
    _schemathesis(tmp_path, f"{proxy.ops_url}/platform", *OF_GATEWAY, *SHORT)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_generated_posts_are_answered_as_the_document_says(proxy: Proxy, tmp_path: Path):
    _schemathesis(tmp_path, proxy.url, *OF_THE_FRONT, *LONG)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_generated_requests_of_operators_are_answered_as_the_document_says(proxy: Proxy, tmp_path: Path):
    _schemathesis(tmp_path, proxy.ops_url, *OF_OPERATIONS, *LONG)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_generated_calls_of_the_gateway_are_answered_as_the_document_says(proxy: Proxy, tmp_path: Path):
    _schemathesis(tmp_path, f"{proxy.ops_url}/platform", *OF_GATEWAY, *LONG)
