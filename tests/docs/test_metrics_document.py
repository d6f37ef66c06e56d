"""docs/metrics.md, the alerts and the dashboard name what is counted, and nothing else; each alert has its runbook."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

import gateway.metrics
import operations.metrics  # noqa: F401  It registers what workers count.
from crossmodel_site.metrics import SharedState, look_at
from operations.gauges import GAUGES

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(crossmodel_\w+)` \| (?:([\w, ]*) \| )?", re.MULTILINE)
NAME = re.compile(r"\bcrossmodel_\w+")
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def counted() -> dict[str, set[str]]:
    """Return the names that Prometheus sees, each with its labels."""
    found: dict[str, set[str]] = {}
    for collector in set(REGISTRY._collector_to_names):
        name = getattr(collector, "_name", "")
        if name.startswith("crossmodel_"):
            kind = collector._type  # type: ignore[attr-defined]
            found[name + ("_total" if kind == "counter" else "")] = set(collector._labelnames)  # type: ignore[attr-defined]
    return found


@pytest.mark.django_db
def test_the_document_names_what_is_counted() -> None:
    documented = {name: set((labels or "").replace(" ", "").split(",")) - {""} for name, labels in ROW.findall(text())}
    own = counted()
    assert {name: documented.get(name) for name in own} == own
    shared = {metric.name for metric in shared_state().collect()}
    assert documented.keys() == own.keys() | shared


def test_no_label_names_a_tenant() -> None:
    labels = set().union(*counted().values())
    assert labels.isdisjoint({"organization", "key", "user", "end_user", "request_id"})


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_counted_and_has_a_runbook(rule: dict[str, Any]) -> None:
    known = set(dict(ROW.findall(text())))
    assert {base_of(name) for name in NAME.findall(rule["expr"])} <= known
    document, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors_of(ROOT / document)
    assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_dashboard_asks_for_what_is_counted() -> None:
    known = set(dict(ROW.findall(text())))
    dashboard = json.loads((ROOT / "deploy/grafana/crossmodel.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    assert {base_of(name) for expression in expressions for name in NAME.findall(expression)} <= known


def test_durations_that_are_given_together_count_as_one_by_one() -> None:
    """It uses private names of the library, which this fails without."""
    seconds = [0.0, 0.05, 0.1, 0.10001, 7.0, 10_000.0]
    registry = CollectorRegistry()
    alone, together = (Histogram(name, name, buckets=(0.05, 0.1, 5), registry=registry) for name in ("a", "b"))
    for each in seconds:
        alone.observe(each)
    gateway.metrics.observe_all(together, seconds)
    for suffix, labels in [
        ("_sum", {}),
        ("_count", {}),
        *(("_bucket", {"le": le}) for le in ("0.05", "0.1", "5.0", "+Inf")),
    ]:
        expected = registry.get_sample_value("a" + suffix, labels)
        assert expected == registry.get_sample_value("b" + suffix, labels)
        assert expected is not None


def test_names_of_models_are_bounded() -> None:
    names = gateway.metrics._Names(2)
    assert [names.label(name) for name in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]


def test_shared_state_is_missing_where_a_store_is_away(redis_away: None, db: None) -> None:
    registry = CollectorRegistry()
    registry.register(shared_state())
    assert registry.get_sample_value("crossmodel_store_up", {"store": "redis"}) == 0
    assert registry.get_sample_value("crossmodel_settlement_lag_seconds") is None
    assert registry.get_sample_value("crossmodel_store_up", {"store": "postgres"}) == 1
    assert registry.get_sample_value("crossmodel_quarantined_events") == 0


def shared_state() -> SharedState:
    return SharedState({store: look_at(store) for store in GAUGES})


def text() -> str:
    return (ROOT / "docs/metrics.md").read_text()


def base_of(name: str) -> str:
    return name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
