"""Upstreams: how they are, and what an operator does about it. Superusers alone say where they are."""

import re
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.audit_entries import record
from billing.admission.errors import AdmissionUnavailableError
from billing.catalog.file import BASE_URL, VARIABLE_NAME
from billing.catalog.profiles import profile_problem
from billing.catalog.serving import what_is_lost
from billing.catalog.variables import forbidden_variables, may_name
from billing.models import Upstream
from billing.upstream_health.sharing import UpstreamHealth, read_upstream_health, reset_upstream_health
from operations.admin.base import OperatorAdmin, ask_first, detail_action, is_superuser
from operations.upstream_checks import check_upstream, without_credential
from pages.forms import ModelForm

WORDS = {"breaker": "breaker open", "suspected": "suspected of failing", "account": "our account is refused"}


class UpstreamForm(ModelForm[Upstream]):
    """Takes what the catalog file takes."""

    def clean_base_url(self) -> str:
        base_url: str = self.cleaned_data["base_url"]
        if not re.fullmatch(BASE_URL, base_url):
            raise ValidationError("Enter an http(s) address or ${NAME}, without a password.")
        if forbidden := forbidden_variables(base_url):
            raise ValidationError(f"{forbidden[0]} may not be sent to an upstream (CROSSMODEL_UPSTREAM_VARIABLES).")
        return base_url

    def clean_credential_env(self) -> str:
        name: str = self.cleaned_data["credential_env"]
        if name and not re.fullmatch(VARIABLE_NAME, name):
            raise ValidationError("Name an environment variable, never the secret itself.")
        if name and not may_name(name):
            raise ValidationError("This variable may not be sent to an upstream (CROSSMODEL_UPSTREAM_VARIABLES).")
        return name

    def clean_profile(self) -> dict[str, Any]:
        profile = self.cleaned_data["profile"] or {}
        if not isinstance(profile, dict):
            raise ValidationError("Enter a JSON object.")
        if problem := profile_problem(profile):
            raise ValidationError(f"{problem}.")
        return profile


@admin.register(Upstream)
class UpstreamAdmin(OperatorAdmin):
    """`credential_env` names a variable of the gateway's environment; the credential itself is nowhere in here."""

    form = UpstreamForm
    list_display = ["name", "health", "models_served", "protocol", "address", "credential"]
    list_filter = ["protocol", "is_enabled"]
    search_fields = ["name"]
    actions_detail = ["test_call", "reset", "disable", "enable"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upstream]:
        serving = Q(routes__is_enabled=True, routes__language_model__is_enabled=True)
        rows: QuerySet[Upstream] = super().get_queryset(request)
        return rows.annotate(serves=Count("routes__language_model", filter=serving, distinct=True))

    def get_list_display(self, request: HttpRequest) -> list[str]:
        """Ask Redis once for a page, and not for each row."""
        self._told = _read_health()
        return self.list_display

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def get_fields(self, request: HttpRequest, obj: Upstream | None = None) -> list[str]:
        fields = [name for name in super().get_fields(request, obj) if name not in ("health", "models_served")]
        return [*fields, "health", "models_served"] if obj else fields

    def get_readonly_fields(self, request: HttpRequest, obj: Upstream | None = None) -> list[str]:
        """Whoever chooses where a credential is sent, or which, has it: that is for superusers alone."""
        shown = ["is_enabled", "health", "models_served"] if obj else []
        closed = ["name", "protocol", "base_url", "credential_env", "profile", "is_sandbox"]
        return shown if is_superuser(request) else [*shown, *closed]

    def has_delete_permission(self, request: HttpRequest, obj: Upstream | None = None) -> bool:
        """Never: price versions name it. Disable it instead."""
        return False

    @admin.display(description="Address", ordering="base_url")
    def address(self, upstream: Upstream) -> str:
        return f"{upstream.base_url}{' (sandbox)' if upstream.is_sandbox else ''}"

    @admin.display(description="Credential's variable", ordering="credential_env")
    def credential(self, upstream: Upstream) -> str:
        if upstream.credential_env and without_credential([upstream]):
            return f"{upstream.credential_env}, not set here"
        return upstream.credential_env or "None"

    @admin.display(description="Models")
    def models_served(self, upstream: Upstream) -> int:
        count: int = upstream.serves  # type: ignore[attr-defined]
        return count

    @admin.display(description="Health")
    def health(self, upstream: Upstream) -> SafeString | str:
        told = getattr(self, "_told", None)
        told = _read_health() if told is None else told
        if isinstance(told, str):
            return told
        if not upstream.is_enabled:
            return "Disabled"
        rows = [(_say(item),) for item in told if item.upstream == upstream.name]
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", rows)) if rows else "Well"

    def change_view(self, request: HttpRequest, object_id: str, *arguments: Any, **options: Any) -> HttpResponse:
        self._told = _read_health()
        response: HttpResponse = super().change_view(request, object_id, *arguments, **options)
        return response

    def offers(self, request: HttpRequest, row: Upstream, button: str) -> bool:
        return {"disable": row.is_enabled, "enable": not row.is_enabled}.get(button, True)

    @detail_action("Test call", permission="billing.change_upstream", url_path="test-call")
    def test_call(self, request: HttpRequest, object_id: str) -> HttpResponse:
        upstream: Upstream = self.row_or_404(request, object_id)

        def do() -> None:
            for number, checked in enumerate(check_upstream(upstream), 1):
                tell = messages.success if checked.is_well else messages.error
                tell(request, f"Credential {number}: {checked.says}" if upstream.credential_env else checked.says)
            record("called for a test", subject_table="billing_upstream", subject_id=upstream.pk)

        title = f"Call {upstream.name} for a test?"
        text = "Asks for its list of models, once with each credential. It costs nothing and suspends nothing."
        return ask_first(self, request, upstream, do, title=title, text=text, submit="Call it")

    @detail_action("Reset health", permission="billing.change_upstream", url_path="reset")
    def reset(self, request: HttpRequest, object_id: str) -> HttpResponse:
        upstream: Upstream = self.row_or_404(request, object_id)

        def do() -> None:
            try:
                reset_upstream_health(upstream.name)
            except AdmissionUnavailableError as error:
                messages.error(request, f"Redis cannot be reached: {error}")
            else:
                record("health reset", subject_table="billing_upstream", subject_id=upstream.pk)
                messages.success(request, "Every gateway forgets within seconds what it holds against it.")

        title = f"Reset what is held against {upstream.name}?"
        text = (
            "Closes its breakers and takes its credentials back into use, on every gateway. What is still wrong is"
            " found again by the next calls."
        )
        return ask_first(self, request, upstream, do, title=title, text=text, submit="Reset health")

    @detail_action("Drain and disable", permission="billing.change_upstream", url_path="disable")
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        upstream: Upstream = self.row_or_404(request, object_id)
        lost = what_is_lost(lambda: Upstream.objects.filter(pk=upstream.pk).update(is_enabled=False))
        bare = _others_without_credential(upstream)
        return ask_first(
            self,
            request,
            upstream,
            partial(self._switch, request, upstream, is_enabled=False),
            title=f"Drain and disable {upstream.name}?",
            text=_what_disabling_does(upstream, [str(model) for model in lost], bare),
            submit="Disable",
            is_dangerous=bool(lost or bare),
        )

    @detail_action("Enable", permission="billing.change_upstream", url_path="enable")
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        upstream: Upstream = self.row_or_404(request, object_id)
        title, text = f"Enable {upstream.name}?", "Requests go there again within seconds."
        do = partial(self._switch, request, upstream, is_enabled=True)
        return ask_first(self, request, upstream, do, title=title, text=text, submit="Enable")

    def _switch(self, request: HttpRequest, upstream: Upstream, *, is_enabled: bool) -> None:
        upstream.is_enabled = is_enabled
        upstream.save(update_fields=["is_enabled"])
        messages.success(request, f"{upstream.name} is {'enabled' if is_enabled else 'disabled'}.")


def _others_without_credential(upstream: Upstream) -> list[str]:
    """Return those who would serve in its place, and have no credential here."""
    served = upstream.routes.filter(is_enabled=True).values("language_model_id")
    others = Upstream.objects.filter(is_enabled=True, routes__is_enabled=True, routes__language_model_id__in=served)
    return without_credential(others.exclude(pk=upstream.pk).distinct().order_by("name"))


def _what_disabling_does(upstream: Upstream, lost: list[str], bare: list[str]) -> str:
    lines = ["Within seconds no new request goes there; those that run end as they would."]
    if lost:
        lines += ["No other provider serves:", *(f"- {model}" for model in lost)]
    else:
        lines.append("All its models are served by others.")
    if bare:
        lines.append(f"But no credential is set here for {', '.join(bare)}: be sure that gateways have one.")
    if upstream.catalog_file:
        lines.append(f"A load of {upstream.catalog_file} enables it again, unless it says enabled = false by then.")
    return "\n".join(lines)


def _read_health() -> list[UpstreamHealth] | str:
    try:
        return read_upstream_health()
    except AdmissionUnavailableError:
        return "Unknown: Redis does not answer"


def _say(item: UpstreamHealth) -> str:
    what = WORDS.get(item.subject, f"suspended {item.subject}")
    return f"{what}, for {item.lasts_ms / 1000:.0f} s more"
