"""What Prometheus is told of what operations/status.py finds, by the store that is asked."""

from typing import NamedTuple


class Gauge(NamedTuple):
    """What Prometheus gets of lines: the sum of their values, or with `labels` each by itself."""

    text: str
    labels: tuple[str, ...] = ()


GAUGES: dict[str, dict[str, Gauge]] = {
    "redis": {
        "settlement_lag_seconds": Gauge("Age of the oldest usage event that is not settled."),
        "waiting_events": Gauge("Usage events that wait for settlement."),
        "rebuilding_shards": Gauge("Shards that admit nobody."),
        "upstream_trouble_seconds": Gauge(
            "How long an open breaker, a suspicion or a suspended credential lasts yet, as gateways told each other.",
            ("upstream", "what"),
        ),
        "redis_connections": Gauge("Connections that the Redis servers have."),
        "redis_connections_max": Gauge("Connections that they may have."),
        "redis_memory_bytes": Gauge("Memory that the Redis servers use."),
        "redis_memory_bytes_max": Gauge("Memory that they may use; 0 is no bound."),
    },
    "postgres": {
        "unpublished_changes": Gauge("Changes that Redis does not know yet."),
        "quarantined_events": Gauge("Usage events that wait for a person."),
        "open_breaks": Gauge("Differences between books that nobody has resolved."),
        "late_mails": Gauge("Mails that have waited for a quarter of an hour."),
        "late_webhooks": Gauge("Deliveries that nobody sends."),
        "unserved_models": Gauge("Models on sale that no enabled upstream serves."),
        "waiting_approvals": Gauge("Changes of money that wait for a second person."),
        "price_drafts": Gauge("Price drafts that nobody has approved or discarded."),
        "jobs_in_trouble": Gauge("Jobs that are late, stuck or failing."),
        "missing_partitions": Gauge("Monthly partitions that should be there and are not."),
        "late_documents": Gauge("Organizations without the documents of a month that is over."),
        "webhook_endpoints": Gauge("Webhook endpoints of customers.", ("state",)),
        "postgres_connections": Gauge("Connections that Postgres has.", ("state",)),
        "postgres_connections_max": Gauge("Connections that clients may have."),
        "provider_balance_usd": Gauge("What is left on our account at a provider.", ("upstream",)),
    },
}
