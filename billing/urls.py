"""Pages about money, under `/console/<slug>/`, and the JSON API under `/api/v1/`."""

from django.urls import path

from billing import api
from billing.views import billing, overview, usage

urlpatterns = [
    path("console/<slug:slug>/", overview.overview, name="overview"),
    path("console/<slug:slug>/usage/", usage.usage, name="usage"),
    path("console/<slug:slug>/usage/export.csv", usage.usage_export, name="usage_export"),
    path("console/<slug:slug>/usage/<slug:request_id>/", usage.receipt, name="receipt"),
    path("console/<slug:slug>/billing/", billing.billing, name="billing"),
    path("console/<slug:slug>/billing/transactions/<int:transaction_id>/", billing.transaction, name="transaction"),
]

api_urlpatterns = [
    path("credits", api.CreditsView.as_view(), name="api_credits"),
    path("key", api.KeyView.as_view(), name="api_key"),
    path("generation", api.GenerationView.as_view(), name="api_generation"),
]
