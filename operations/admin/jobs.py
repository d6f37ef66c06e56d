"""Scheduled work: what ran, when, how long, how it ended; and a button to run it now."""

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST, require_safe
from kombu.exceptions import OperationalError

from accounts.models import User
from operations.admin.base import ReadOnlyAdmin
from operations.admin.filters import known_values
from operations.job_records import DIED
from operations.jobs import BY_NAME, read_standings, run_now
from operations.models import JobRun


@admin.register(JobRun)
class JobRunAdmin(ReadOnlyAdmin):
    list_display = ["job", "ending", "first_started_at", "last_ended_at", "runs", "slowest", "detail"]
    list_filter = [known_values("job", "job", lambda: BY_NAME), "is_failure"]
    ordering = ["-last_ended_at"]
    sortable_by = ()

    @admin.display(description="Ended")
    def ending(self, row: JobRun) -> SafeString | str:
        if not row.is_failure:
            return "well"
        word = "died" if row.detail.startswith(DIED) else "failed"
        return format_html('<strong class="text-red-600 font-semibold">{}</strong>', word)

    @admin.display(description="Slowest")
    def slowest(self, row: JobRun) -> str:
        return f"{row.slowest_ms:,} ms"


@require_safe
def show_jobs(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)  # noqa: S101  admin_view() has seen to it.
    if not request.user.has_perm("operations.view_jobrun"):
        raise PermissionDenied
    context = {
        **admin.site.each_context(request),
        "title": "Jobs",
        "standings": read_standings(),
        "may_run": request.user.has_perm("operations.run_job"),
    }
    return render(request, "operations/jobs.html", context)


@require_POST
def run_job_now(request: HttpRequest, name: str) -> HttpResponse:
    assert isinstance(request.user, User)  # noqa: S101  admin_view() has seen to it.
    if not request.user.has_perm("operations.run_job"):
        raise PermissionDenied
    job = BY_NAME.get(name)
    if job is None:
        raise Http404
    try:
        run_now(job)
    except OperationalError:
        messages.error(request, "The broker cannot be reached, so no worker was asked.")
    else:
        messages.success(request, f"A worker was asked to run {job.name} now.")
    return redirect("operations_jobs")
