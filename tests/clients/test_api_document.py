"""docs/api.md says what is: its table of clients, its errors, and its command."""

import json
import re
import subprocess

import pytest

from accounts.models import Organization
from billing.models import BudgetOverride
from gateway.errors import API, TYPE_BY_STATUS
from tests.clients.matrix import ROOT, render_table
from tests.support.live_stack import LiveStack, Tenant

DOCUMENT = (ROOT / "docs/api.md").read_text()
ERROR_ROW = re.compile(r"^\| (\d{3}) \| `(\w+)` \| `(\w+)` \|", re.MULTILINE)
# Where a code stands in the source of the gateway and of the JSON API, and in the scripts that admit.
SOURCES = (
    *sorted((ROOT / "gateway").rglob("*.py")),
    *sorted((ROOT / "api").glob("*.py")),
    ROOT / "crossmodel_site/error_pages.py",
)
CODES_IN_PYTHON = (
    r'(?:error_response|_api_error)\(\s*\d+, "([a-z_]+)"',
    r'default_code = "([a-z_]+)"',
    r'GatewayError\(\s*\d+,\s*"([a-z_]+)"',
    r'UpstreamFailure\(\s*\d+,\s*"[a-z_]+",\s*"([a-z_]+)"',
    r'(?:\bcode|CODE)(?:: str)? ?= ?"([a-z_]+)"',
    r'CODE, \w+ = \(\s*"([a-z_]+)"',
    r'_error_event\(\s*"[a-z_]+",\s*"([a-z_]+)"',
)
CODES_IN_LUA = (r"'REFUSED', '([a-z_]+[a-z])'", r"refuse\('([a-z_]+[a-z])'", r"'(rate_limited_[a-z_]+)'")
BUDGET_IN_LUA = r"'(_[a-z]+_budget_exceeded)'"
# What Django REST framework itself answers below `/api/`.
OF_DRF = {"invalid_parameters", "parse_error", "unsupported_media_type"}
# Never answered: the request id would have to be sent again by the gateway itself.
INTERNAL = {"request_ended"}


def test_the_table_of_clients_is_what_is_tested() -> None:
    assert render_table() in DOCUMENT, f"docs/api.md should contain:\n\n{render_table()}"


def test_every_code_of_an_error_is_documented() -> None:
    documented = [code for _, _, code in ERROR_ROW.findall(DOCUMENT)]
    assert len(set(documented)) == len(documented)
    assert set(documented) == codes_in_source()


def test_the_type_of_an_error_follows_its_status() -> None:
    for status, kind, _ in ERROR_ROW.findall(DOCUMENT):
        assert kind == TYPE_BY_STATUS.get(int(status), API)


def codes_in_source() -> set[str]:
    codes: set[str] = set()
    for path in SOURCES:
        for pattern in CODES_IN_PYTHON:
            codes.update(re.findall(pattern, path.read_text()))
    for path in (ROOT / "billing/admission/lua").glob("*.lua"):
        text = path.read_text()
        for pattern in CODES_IN_LUA:
            codes.update(re.findall(pattern, text))
        codes.update(scope + name for name in re.findall(BUDGET_IN_LUA, text) for scope in BudgetOverride.Scope.values)
    closed = {f"organization_{status}" for status in Organization.Status.values if status != Organization.Status.ACTIVE}
    return (codes | closed | OF_DRF) - INTERNAL


@pytest.mark.parametrize("script", re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))
def test_its_command_works(script: str, stack: LiveStack, alice: Tenant) -> None:
    """With the address and the key of this test in place of those in the document."""
    script = script.replace("https://api.crossmodel.ai", stack.base_url).replace("cm-YOUR_KEY", alice.secret)
    answer = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads(answer.stdout)["stop_reason"] == "end_turn"
