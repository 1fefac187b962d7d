"""What the chart says once it is installed: the next command, and what is amiss."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.deploy.helm_chart import LEAST, STATEFULSET, rendered


def notes(values: Mapping[str, Any]) -> str:
    return rendered(values)["NOTES.txt"]


TOKEN = {"opsToken": {"existingSecret": "ops"}}
INGRESS = {"ingress": {"enabled": True, "hosts": [{"host": "t.example.com"}], "tls": [{"secretName": "t"}]}}
TRUSTED = {"config": {"front": {"trusted_proxies": ["10.0.0.0/8"]}}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**LEAST, **TOKEN}, "exec deployment/web-outlit-proxy -- outlit-proxy send --key pk_YOURS"),
        ({**STATEFULSET, **TOKEN}, "exec pod/web-outlit-proxy-0 -- outlit-proxy send --key pk_YOURS"),
        (LEAST, "exec deployment/web-outlit-proxy -- outlit-proxy healthcheck"),
        (LEAST, "--set opsToken.existingSecret=web-outlit-proxy-ops"),
        (LEAST, "kubectl -n analytics port-forward deployment/web-outlit-proxy 9090"),
        (LEAST, "within the cluster: http://web-outlit-proxy.analytics\n"),
        ({**LEAST, "service": {"port": 81}}, "within the cluster: http://web-outlit-proxy.analytics:81\n"),
        ({**LEAST, **INGRESS}, "From outside: https://t.example.com"),
        (
            {**LEAST, **INGRESS},
            "! config.front.trusted_proxies is not set. Every visitor will seem to come from",
        ),
        (
            {**LEAST, "service": {"type": "LoadBalancer"}},
            "! config.front.trusted_proxies is not set. If the load",
        ),
        (
            {**STATEFULSET, "replicaCount": 3},
            "! 3 pods with a buffer each: each may send 33.3 % of what Outlit",
        ),
        (
            {**STATEFULSET, "persistence": {"enabled": False}, "config": {"delivery": {"on_exit": "drain"}}},
            "! persistence.enabled is false: what a pod holds is gone with it.",
        ),
        (
            {**LEAST, **TOKEN, "gatewayApiKey": {"existingSecret": "api"}},
            "exec deployment/web-outlit-proxy -- outlit-proxy platform validate",
        ),
        ({**LEAST, "opsToken": {"value": "12345678"}}, "it in opsToken.existingSecret."),
        (
            {**LEAST, "opsToken": {"value": "12345678"}, "gatewayApiKey": {"value": "ok_12345678"}},
            "it in gatewayApiKey.existingSecret, opsToken.existingSecret.",
        ),
        ({"redis": {"url": "redis://r", "password": "p"}}, "it in redis.existingSecret."),
        (LEAST, "Metrics are at web-outlit-proxy-ops:9090/metrics"),
        (LEAST, "(If its pods stay in ImagePullBackOff: no node has the image outlit-proxy:"),
    ],
)
def test_the_notes_say(values, said):
    assert said in notes(values)


def test_an_image_of_a_registry_is_taken_to_be_there():
    for image in ({"registry": "registry.example.com"}, {"repository": "registry.example.com/outlit-proxy"}):
        assert "ImagePullBackOff" not in notes({**LEAST, "image": image})


def test_the_notes_have_no_command_for_a_gateway_without_a_key():
    assert "outlit-proxy platform" not in notes({**LEAST, **TOKEN})


def test_the_notes_warn_of_nothing_where_nothing_is_wrong():
    for values in (LEAST, STATEFULSET, {**LEAST, **INGRESS, **TRUSTED, **TOKEN}):
        assert "!" not in notes(values)
