"""Nothing starts where messages about money would be believed without a secret."""

import os
import subprocess
import sys

import pytest

STRIPE = {
    "CROSSMODEL_PAYMENT_PROVIDER": "stripe",
    "CROSSMODEL_STRIPE_SECRET_KEY": "sk_test_not_a_real_one",
    "CROSSMODEL_STRIPE_WEBHOOK_SECRET": "whsec_not_a_real_one",
}
SANDBOX = {
    "CROSSMODEL_PAYMENT_PROVIDER": "sandbox",
    "CROSSMODEL_PAYMENT_SANDBOX_URL": "http://127.0.0.1:9",
    "CROSSMODEL_PAYMENT_SANDBOX_SECRET": "not a real one either",
}


def start(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process of its own, as every process of CrossModel does first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROSSMODEL_")}
    kept["CROSSMODEL_DATA"] = os.environ["CROSSMODEL_DATA"]  # Else those of a local run in this checkout would be read.
    code = "import crossmodel_site.settings as s; print(s.PAYMENT_PROVIDER)"
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("complete", [STRIPE, SANDBOX])
def test_a_provider_with_all_its_settings_starts(complete: dict[str, str]) -> None:
    assert start(complete).stdout.strip() == complete["CROSSMODEL_PAYMENT_PROVIDER"]


@pytest.mark.parametrize(
    ("complete", "missing"),
    [(whole, name) for whole in (STRIPE, SANDBOX) for name in whole if name != "CROSSMODEL_PAYMENT_PROVIDER"],
)
@pytest.mark.parametrize("value", [None, "", "   "])
def test_a_missing_or_empty_setting_of_a_provider_refuses_to_start(
    complete: dict[str, str], missing: str, value: str | None
) -> None:
    variables = {name: text for name, text in complete.items() if name != missing}
    if value is not None:
        variables[missing] = value
    result = start(variables)
    assert result.returncode != 0
    assert f"{missing} is not set, and CROSSMODEL_PAYMENT_PROVIDER is" in result.stderr


def test_a_secret_that_can_be_guessed_refuses_to_start() -> None:
    assert "too short to be a secret" in start(STRIPE | {"CROSSMODEL_STRIPE_WEBHOOK_SECRET": "whsec_"}).stderr


def test_bounds_that_leave_nothing_refuse_to_start() -> None:
    bounds = {"CROSSMODEL_MIN_TOP_UP_USD": "20", "CROSSMODEL_MAX_TOP_UP_USD": "10"}
    assert "must not be above" in start(bounds).stderr
