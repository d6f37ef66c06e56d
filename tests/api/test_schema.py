"""Schemathesis finds nothing: each call gets what its schema allows, and what it does not, and answers as it says.

A few examples of each in the suite; `make test-schema` sends many more.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from api import base
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import queue_test
from tests.api.manager import Manager
from tests.support.people import People
from tests.support.settled_usage import billed_event, sell_model, settle

FEW = 3
# Not CROSSMODEL_...: those of whoever runs the tests are dropped before this is read.
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", FEW))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    ignored_auth,
    negative_data_rejection,
]
ANSWERED_BY_THE_GATEWAY = "/api/v1/estimate"


@pytest.fixture
def manager(people: People, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """An owner's key of an organization in which there is something of everything."""
    monkeypatch.setattr(base, "CALLS_PER_MINUTE_OF_KEY", 10**6)
    monkeypatch.setattr(base, "CALLS_PER_MINUTE_OF_ORGANIZATION", 10**6)
    settle([billed_event(people.key, sell_model())])
    endpoint, _ = add_endpoint(people.organization, url="https://example.org/", created_by=people.alice)
    queue_test(endpoint)
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)  # All calls share the connection of this test.
    yield Manager(people.organization, person=people.alice)
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", get_wsgi_application())
# Postgres keeps no text with a NUL: it is refused. Which key asks is said below.
schema.config.generation.update(allow_x00=False, with_security_parameters=False)
schema.config.phases.coverage.enabled = EXAMPLES > FEW
described = schema.exclude(path=ANSWERED_BY_THE_GATEWAY)


@described.parametrize()
@hypothesis_settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_schemathesis_finds_nothing(case: Any, manager: Manager) -> None:
    case.call_and_validate(headers={"authorization": f"Bearer {manager.secret}"}, checks=CHECKS)
