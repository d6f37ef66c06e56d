"""How Django writes dates where a template does not say: one form everywhere, with seconds and the zone."""
