"""All faults by name. The first five are short enough for every run of the suite."""

from collections.abc import Callable

from billing.admission.redis.topology import CLUSTER, SENTINEL, SINGLE
from tests.faults import (
    changes,
    deliveries,
    disks,
    documents,
    machines,
    outside,
    pairs,
    payments,
    processes,
    servers,
    terms,
    topologies,
)
from tests.faults.scenario import Scenario
from tests.faults.stacks import MACHINES

Fault = Callable[[Scenario], None]


def _by_name(*faults: Fault) -> dict[str, Fault]:
    return {fault.__name__: fault for fault in faults}


DEATHS = _by_name(
    processes.gateway_killed,
    processes.worker_killed,
    servers.redis_killed,
    servers.redis_emptied,
    servers.postgres_killed,
)
CLOCK_FAULTS = _by_name(
    changes.clock_put_forward,
    changes.clock_put_back,
    changes.gateway_clock_put_forward,
    changes.gateway_clock_put_back,
)
FAULTS = {
    **DEATHS,
    **_by_name(
        processes.gateway_stopped_past_its_lease,
        processes.worker_killed_before_it_confirms,
        processes.worker_child_killed,
        processes.beat_doubled,
        servers.redis_loses_its_last_writes,
        servers.redis_full,
        servers.redis_slow,
        servers.postgres_away_for_a_minute,
        servers.postgres_restored,
        disks.disk_full,
        disks.spool_folder_away,
        disks.disk_full_while_redis_is_away,
        outside.clients_leave_or_crawl,
        outside.upstream_refuses,
        outside.upstream_hangs,
        outside.upstream_resets,
        outside.upstream_breaks_off,
        outside.upstream_repeats_itself,
        outside.costs_exceed_holds,
        outside.crowd_on_a_small_balance,
        outside.crowd_while_redis_is_emptied,
        outside.poison_in_a_stream,
        outside.entries_trimmed,
        changes.price_changed,
        changes.key_revoked,
        changes.lot_expired,
        terms.price_factors_changed,
        terms.organization_suspended,
        terms.key_rotated_and_handed_over,
        terms.limits_lowered_below_what_is_used,
        terms.terms_changed_at_once,
        payments.payment_messages_lost,
        payments.payment_messages_doubled,
        payments.payment_messages_late,
        payments.payment_messages_reversed,
        payments.gateway_killed_among_payment_messages,
        payments.worker_killed_between_charge_and_posting,
        documents.closings_at_once_and_one_killed,
        deliveries.webhook_endpoint_down,
        deliveries.worker_killed_in_a_delivery,
        pairs.gateway_killed_past_its_lease,
        pairs.gateway_killed_while_redis_is_away,
        pairs.gateway_killed_while_redis_loses_its_last_writes,
        pairs.gateway_stopped_while_redis_loses_its_last_writes,
        pairs.gateway_stopped_while_redis_is_emptied,
        pairs.gateway_stopped_while_postgres_is_killed,
    ),
    **CLOCK_FAULTS,
}
SENTINEL_FAULTS = _by_name(topologies.master_failed_over)
MACHINE_FAULTS = _by_name(machines.gateways_restarted_in_turn, machines.gateway_machine_lost)
FAULTS_BY_TOPOLOGY = {
    SINGLE: FAULTS,
    CLUSTER: FAULTS,
    SENTINEL: {**FAULTS, **SENTINEL_FAULTS},
    MACHINES: MACHINE_FAULTS,
}
ALL_FAULTS = {**FAULTS, **SENTINEL_FAULTS, **MACHINE_FAULTS}
