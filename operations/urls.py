"""Operators' pages beside the admin's own, below `/admin/`. Only staff gets in."""

from django.contrib import admin
from django.urls import path

from operations import views
from operations.admin.jobs import run_job_now, show_jobs
from operations.runbook import show_runbook

urlpatterns = [
    path("find/", admin.site.admin_view(views.find_anything), name="operations_find"),
    path("runbook/", admin.site.admin_view(show_runbook), name="operations_runbook"),
    path("look/end/", admin.site.admin_view(views.stop_looking), name="operations_end_look"),
    path("jobs/", admin.site.admin_view(show_jobs), name="operations_jobs"),
    path("jobs/<slug:name>/run/", admin.site.admin_view(run_job_now), name="operations_run_job"),
    path("requests/<slug:request_id>/", admin.site.admin_view(views.request_story), name="operations_request"),
    path(
        "requests/<slug:request_id>/support/",
        admin.site.admin_view(views.send_to_support),
        name="operations_send_to_support",
    ),
]
