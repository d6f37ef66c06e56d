"""SQL of the rule by which billing/pricing/cost.py prices a record, to pass over the many that are right.

Numbers are numeric, so nothing overflows, and whatever is not certainly right is left to the rule itself: a count out
of bounds, a component without a price, a price version that is not there.
"""

from billing.money import PICOS_PER_NANO
from billing.pricing.cost import COMPONENTS, MAX_FACTOR_PPM, PICOS_PPM_PER_NANO, PROMPT_COMPONENTS
from billing.usage_event import MAX_COUNT, USAGE_COUNTS

_COLUMN_OF = dict(zip(COMPONENTS, USAGE_COUNTS, strict=True))
_COUNTS = ", ".join(f"record.{name}" for name in USAGE_COUNTS)
_PROMPT = " + ".join(f"record.{_COLUMN_OF[component]}" for component in PROMPT_COMPONENTS)
# What was not used costs nothing, whether or not it has a price.
_PICOS = " + ".join(
    f"CASE WHEN record.{column} = 0 THEN 0 ELSE record.{column}::numeric * band.{component} END"
    for component, column in _COLUMN_OF.items()
)
_CHARGED = f"greatest({_PICOS}, band.minimum_charge_nanos::numeric * {PICOS_PER_NANO})"
_NANOS = f"div(({_CHARGED}) * record.factor_ppm + {PICOS_PPM_PER_NANO - 1}, {PICOS_PPM_PER_NANO})"
_IN_BOUNDS = " AND ".join(f"record.{name} BETWEEN 0 AND {MAX_COUNT}" for name in USAGE_COUNTS)

_PRICES = ", ".join(
    f"""(SELECT picos_per_unit FROM billing_pricecomponent tier
            WHERE tier.price_version_id = start.price_version_id AND tier.component = '{component}'
              AND tier.prompt_tokens_from <= start.prompt_tokens_from
            ORDER BY tier.prompt_tokens_from DESC LIMIT 1)::numeric AS {component}"""  # noqa: S608  Constants.
    for component in COMPONENTS
)
# A price version is cut into bands of prompt sizes, in each of which every component has one price.
_BANDS = f"""
    SELECT start.price_version_id, start.prompt_tokens_from AS begins, version.minimum_charge_nanos, {_PRICES},
        lead(start.prompt_tokens_from) OVER (PARTITION BY start.price_version_id ORDER BY start.prompt_tokens_from)
            AS ends
    FROM (SELECT DISTINCT price_version_id, prompt_tokens_from FROM billing_pricecomponent) start
    JOIN billing_priceversion version ON version.id = start.price_version_id AND version.upstream_id IS NULL
"""  # noqa: S608  Constants.

NOT_RATED_RIGHT = f"""
    SELECT record.price_version_id, record.factor_ppm, record.cost_nanos, record.request_id, {_COUNTS}
    FROM billing_usagerecord record
    LEFT JOIN ({_BANDS}) band ON band.price_version_id = record.price_version_id
        AND {_PROMPT} >= band.begins AND ({_PROMPT} < band.ends OR band.ends IS NULL)
    WHERE SETTLED(record) AND (record.factor_ppm BETWEEN 0 AND {MAX_FACTOR_PPM} AND {_IN_BOUNDS}
        AND record.cost_nanos = CASE WHEN ROW({_COUNTS}) = ROW({", ".join("0" for _ in USAGE_COUNTS)})
            THEN CASE WHEN band.price_version_id IS NOT NULL THEN 0 END ELSE {_NANOS} END) IS NOT TRUE
    ORDER BY record.request_id
"""  # noqa: S608  Constants.
