"""The official Python SDK's own tests of the endpoints that we have, as its source distribution ships them.

They were written for a mock server of the API's description, and check every answer against the SDK's types, also
strictly. Only the base URL and the key are ours, and what they ask for by name is put on sale.
"""

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.clients.catalog import also_selling
from tests.clients.install import SDK_SOURCES, SDK_TESTS, environment_python
from tests.clients.matrix import DRIVERS
from tests.gateway.checks import wait_until_released
from tests.support.live_stack import LiveStack

pytestmark = pytest.mark.clients

FILES = (
    "tests/api_resources/test_messages.py",
    "tests/api_resources/test_models.py",
    "tests/api_resources/beta/test_messages.py",
    "tests/api_resources/beta/test_models.py",
)
# The first asks for each model that Anthropic has retired, and for an answer; the others for all that we do not sell at
# once: containers, MCP servers, regions, fallbacks.
DOES_NOT_APPLY = "not deprecated_model_warning and not create_with_all_params and not count_tokens_with_all_params"
# The description's examples, which a mock server takes for models.
EXAMPLES = ("after_id", "before_id", "model_id")
ENTRY = """
[[model]]
id = "{name}"
display_name = "An example"
context_tokens = 4_096
max_output_tokens = 1_024
max_image_tokens = 1
capabilities = ["tools"]
released = 2026-11-01

[[model.route]]
upstream = "sandbox"
upstream_model = "{name}"

[[model.price]]
applies_to = ["sale", "sandbox"]
source = "tests/clients"
source_date = 2026-11-01
input = "1"
output = "2"
"""
MIN_TESTS = 180
RUN_SECONDS = 170


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_the_sdks_own_tests(stack: LiveStack, tmp_path: Path) -> None:
    tenant = stack.make_tenant(credit_usd="1000")
    report = tmp_path / "report.xml"
    with also_selling(stack, "".join(ENTRY.format(name=name) for name in EXAMPLES), tmp_path):
        for name in EXAMPLES:
            stack.wait_until(
                lambda name=name: stack.get(tenant, f"/v1/models/{name}").status_code == 200,  # type: ignore[misc]
                f"{name} is on sale",
            )
        answer = subprocess.run(
            [environment_python(SDK_TESTS), "-m", "pytest", *FILES, "-k", DOES_NOT_APPLY, "--quiet", "--tb=short",
             "-p", "sdk_key", "-p", "no:cacheprovider", "-o", "addopts=-p tests._alias_httpx",
             f"--junit-xml={report}"],
            cwd=SDK_SOURCES,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(DRIVERS),
                "TEST_API_BASE_URL": stack.base_url,
                "CROSSMODEL_KEY": tenant.secret,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )  # fmt: skip
    assert answer.returncode == 0, answer.stdout[-8_000:] + answer.stderr[-2_000:]
    [suite] = ElementTree.parse(report).getroot()  # noqa: S314  Written by the run above.
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": counts["tests"], "failures": 0, "errors": 0, "skipped": 0}
    assert counts["tests"] >= MIN_TESTS
    wait_until_released(stack, tenant)
    assert all(record.cost_nanos > 0 for record in stack.records(tenant))
