"""Whatever the API is sent, it does not break: schemathesis makes requests from its own description, such as it asks
for and others, and no answer is a 5xx or one that the description does not tell of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from starlette.testclient import TestClient
from tests_people import Clock, quick_hashes, visiting, with_team
from tests_studio import ADDRESS

from palate.feedback.store import open_store
from palate.studio.app import ROUTERS
from palate.studio.here import Studio
from palate.studio.limits import Limit, Limits

from .test_roles import routes

pytestmark = pytest.mark.slow
EXAMPLES = 20
"""For each operation and each kind of request; all of them take under a minute."""
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
IN_SCHEMA = [route for route in routes() if " /api/v1/" in route]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Where nothing is slowed down."""
    free = Limits(**{field.name: Limit(10**9, 1.0) for field in dataclasses.fields(Limits)})
    with quick_hashes(), open_store(f"sqlite:///{tmp_path_factory.mktemp('api') / 'feedback.sqlite'}") as store:
        yield dataclasses.replace(with_team(store, Clock()), limits=free)


@pytest.fixture(scope="module")
def schema(studio: Studio) -> Any:
    app: Any = visiting(studio).app
    return schemathesis.openapi.from_dict(app.openapi())


def send(client: TestClient, case: Case) -> Any:
    """A case as it goes over the wire, in-process."""
    wire = case.as_transport_kwargs(base_url=ADDRESS)
    body = {"json": wire["json"]} if "json" in wire else {"content": wire["data"]} if wire.get("data") else {}
    for name, value in (wire.get("cookies") or {}).items():
        wire["headers"] = {**wire.get("headers", {}), "cookie": f"{name}={value}"}
    return client.request(wire["method"], wire["url"], params=wire.get("params"), headers=wire.get("headers"), **body)


def test_everything_is_in_the_description(schema: Any) -> None:
    told = {f"{found.ok().method.upper()} {found.ok().path}" for found in schema.get_all_operations()}
    assert told == {route.replace(":path", "") for route in IN_SCHEMA} and len(ROUTERS) > 10


@pytest.mark.parametrize("kind", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as asked for", "otherwise"])
@pytest.mark.parametrize("route", IN_SCHEMA)
def test_nothing_breaks_it(route: str, kind: GenerationMode, schema: Any, studio: Studio) -> None:
    method, path = route.split()
    operation = schema[path][method]
    if kind == GenerationMode.NEGATIVE and not list(operation.iter_parameters()) and not list(operation.body):
        pytest.skip("it takes nothing")
    lead = visiting(studio, "ann")

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=kind))
    def check(case: Case) -> None:
        told = send(lead, case)
        assert told.status_code < 500, (told.status_code, told.text[:500])
        case.validate_response(told, checks=CHECKS)

    try:
        check()
    except Unsatisfiable:
        assert kind == GenerationMode.NEGATIVE
        pytest.skip("it takes whatever comes")
