"""Reports in the shape and at the addresses of Anthropic's Admin API, under `/v1/organizations/`."""

from django.urls import path

from api import reports

urlpatterns = [
    path("usage_report/messages", reports.UsageReportView.as_view(), name="usage_report"),
    path("cost_report", reports.CostReportView.as_view(), name="cost_report"),
]
