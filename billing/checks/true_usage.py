"""SQL of each record as roll-ups count it."""

# Each record as roll-ups count it: an orphan that was corrected by what was true.
TRUE_USAGE = """
    SELECT record.request_id, record.organization_id, record.key_id, record.model_id, record.admitted_at,
        record.first_byte_ms, record.total_ms,
        CASE WHEN correction.outcome = 'failed' THEN 0 ELSE 1 END AS requests,
        coalesce(correction.input_tokens, record.input_tokens) AS input_tokens,
        coalesce(correction.output_tokens, record.output_tokens) AS output_tokens,
        coalesce(correction.cache_write_5m_tokens, record.cache_write_5m_tokens) AS cache_write_5m_tokens,
        coalesce(correction.cache_write_1h_tokens, record.cache_write_1h_tokens) AS cache_write_1h_tokens,
        coalesce(correction.cache_read_tokens, record.cache_read_tokens) AS cache_read_tokens,
        record.cost_nanos + coalesce(correction.cost_after_nanos - correction.cost_before_nanos, 0) AS cost_nanos,
        coalesce(correction.upstream_cost_after_nanos, record.upstream_cost_nanos) AS upstream_cost_nanos
    FROM billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id)
"""
