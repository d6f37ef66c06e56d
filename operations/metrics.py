"""What workers count for Prometheus: settlement and jobs. See gateway/metrics.py for where the counts live."""

from prometheus_client import Counter, Histogram

BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
JOB_SECONDS = (0.01, 0.1, 1, 10, 60, 600, 3600)

SETTLED = Counter("crossmodel_settled_events", "Usage events that were settled.")
BATCHES = Histogram("crossmodel_settlement_batch_seconds", "How long one batch took to settle.", buckets=BATCH_SECONDS)
PUT_OFF = Counter("crossmodel_settlement_put_off", "Batches that could not be settled yet.")
JOBS = Counter("crossmodel_job_runs", "Runs of scheduled work, by how they ended.", ["job", "result"])
JOB_DURATION = Histogram(
    "crossmodel_job_seconds", "How long a run of scheduled work took.", ["job"], buckets=JOB_SECONDS
)
