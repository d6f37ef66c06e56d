"""A small catalog file for tests, with one model of one real and one sandbox upstream."""

CATALOG = """\
[[upstream]]
name = "acme"
protocol = "messages"
base_url = "https://api.acme.example"
credential_env = "ACME_API_KEY"

[upstream.profile]
api_version = "2023-06-01"

[[upstream]]
name = "sandbox"
protocol = "messages"
base_url = "${CROSSMODEL_SANDBOX_URL}"
sandbox = true

[[model]]
id = "acme/large-1.0"
display_name = "Acme Large 1.0"
aliases = ["large-1-0", "acme/large"]
context_tokens = 200_000
max_output_tokens = 64_000
capabilities = ["tools"]
released = 2026-02-17

[[model.route]]
upstream = "acme"
upstream_model = "large-1-0-20260217"

[[model.route]]
upstream = "sandbox"
upstream_model = "large"
position = 9

[[model.price]]
applies_to = ["sale", "acme"]
effective_from = 2026-02-17
source = "https://acme.example/prices"
source_date = 2026-11-01
input = "3"
output = "15"
cache_write_5m = "3.75"
cache_write_1h = "6"
cache_read = "0.30"

[[model.price.tier]]
prompt_tokens_from = 200_001
input = "6"
output = "22.50"
cache_write_5m = "7.50"
cache_write_1h = "12"
cache_read = "0.60"
"""
