"""Prices and upstreams in the admin: side by side, drafted and approved by two, and nothing taken away unsaid."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEntry
from accounts.staff_roles import StaffRole
from billing.admission.redis.blocking_client import run_script
from billing.catalog.notices import tell_who_may_approve
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.catalog.serving import servable_models
from billing.models import LanguageModel, OutgoingMail, PriceVersion, Route, Upstream
from billing.upstream_health.sharing import KEY, SCRIPT, UpstreamHealth, _arguments, read_upstream_health
from pages.audit_lines import describe
from pages.mail import NotWorthTellingError, render_mail
from tests.support.operators import make_operator, operator_client
from tests.support.settled_usage import sell_model


@pytest.fixture
def otto(db: None) -> Client:
    return operator_client("otto", StaffRole.OPERATIONS)


@pytest.fixture
def fay(db: None) -> Client:
    return operator_client("fay", StaffRole.FINANCE)


@pytest.fixture
def version(db: None) -> PriceVersion:
    """A model on sale, served by one upstream."""
    version = sell_model()
    upstream = Upstream.objects.create(name="acme", protocol="messages", base_url="http://127.0.0.1:9")
    Route.objects.create(language_model=version.language_model, upstream=upstream, upstream_model="x")
    return version


def page(model: str, pk: int, button: str = "change") -> str:
    return f"/admin/billing/{model}/{pk}/{button}/"


def test_a_successor_is_drafted_shown_beside_and_approved_by_another(
    version: PriceVersion, otto: Client, fay: Client
) -> None:
    path = page("priceversion", version.pk, "successor")
    form = otto.get(path).context["form"]
    values = {name: field.initial for name, field in form.fields.items() if name.startswith("price_")}
    first = version.components.order_by("pk").first()
    assert first is not None
    for wrong in ("-1", "x", "1e99"):
        assert otto.post(path, {**values, "source": "list", f"price_{first.pk}": wrong}).status_code == 422
    doubled = str(first.picos_per_unit * 2 / 1_000_000)
    response = otto.post(path, {**values, "source": "list", f"price_{first.pk}": doubled})
    draft = PriceVersion.objects.latest("pk")
    assert response.headers["Location"] == page("priceversion", draft.pk)
    assert [mail.user.email for mail in OutgoingMail.objects.all()] == ["fay@example.org"]
    shown = otto.get(page("priceversion", draft.pk)).content.decode()
    assert "+100.00 %" in shown
    approve = page("priceversion", draft.pk, "approve")
    assert otto.post(approve).status_code == 403
    assert "+100.00 %" in fay.get(approve).content.decode()
    assert fay.post(approve).status_code == 302
    draft.refresh_from_db()
    assert (draft.created_by, draft.approved_by) == ("otto@example.org", "fay@example.org")
    assert [str(person) for person in (draft.drafted_by, draft.decided_by)] == ["otto@example.org", "fay@example.org"]


def test_a_price_list_becomes_drafts_after_a_look_and_nothing_else(
    version: PriceVersion, otto: Client, fay: Client
) -> None:
    model_id = version.language_model.model_id
    text = f"""
[[upstream]]
name = "acme"
protocol = "messages"
base_url = "http://127.0.0.1:9"

[[model]]
id = "{model_id}"
display_name = "Other name"
context_tokens = 1000
max_output_tokens = 100
released = 2026-01-01

[[model.route]]
upstream = "acme"
upstream_model = "y"

[[model.price]]
applies_to = ["sale"]
source = "list"
source_date = 2026-11-01
input = "7"
output = "8"
"""
    add = reverse("admin:billing_priceversion_add")
    assert otto.post(add, {"price_list": "[[nonsense"}).status_code == 422
    response = otto.post(add, {"price_list": text})
    assert response.status_code == 200, response.context["form"].errors
    assert "new draft" in response.content.decode()
    assert PriceVersion.objects.count() == 1
    shown = response.context["form"].initial["shown"]
    assert "new draft" in otto.post(add, {"price_list": text + "\n# other", "shown": shown}).content.decode()
    assert otto.post(add, {"price_list": text, "shown": shown}).status_code == 302
    draft = PriceVersion.objects.latest("pk")
    assert (draft.created_by, str(draft.drafted_by), draft.approved_at) == (
        "otto@example.org",
        "otto@example.org",
        None,
    )
    [mail] = OutgoingMail.objects.all()
    assert (mail.user.email, mail.context) == ("fay@example.org", {"drafts": [draft.pk]})
    assert "Nothing differs" in otto.post(add, {"price_list": text}).content.decode()  # The draft is there.
    assert not LanguageModel.objects.filter(display_name="Other name").exists()


def test_what_only_one_upstream_serves_is_said_before_it_is_disabled(version: PriceVersion, otto: Client) -> None:
    upstream = Upstream.objects.get()
    model_id = version.language_model.model_id
    disable = page("upstream", upstream.pk, "disable")
    assert f"No other provider serves:<br>- {model_id} (503" in otto.get(disable).content.decode()
    assert servable_models()[model_id]
    assert otto.post(disable).status_code == 302
    assert not servable_models()[model_id]
    assert AuditEntry.objects.filter(subject_table="billing_upstream", action="changed").count() == 1
    assert otto.post(page("upstream", upstream.pk, "enable")).status_code == 302
    other = Upstream.objects.create(name="other", protocol="messages", base_url="http://127.0.0.1:9")
    Route.objects.create(language_model=version.language_model, upstream=other, upstream_model="x")
    assert "are served by others" in otto.get(disable).content.decode()
    Upstream.objects.filter(pk=other.pk).update(is_sandbox=True)
    assert f"{model_id} (the sandbox alone answers)" in otto.get(disable).content.decode()


def test_a_model_off_sale_is_saved_only_by_who_is_sure(version: PriceVersion, otto: Client) -> None:
    model = version.language_model
    path = page("languagemodel", model.pk)
    form = dict.fromkeys(("retires_at_0", "retires_at_1"), "")
    form |= {"model_id": model.model_id, "display_name": "New", "context_tokens": "1000", "max_output_tokens": "100"}
    form |= {"max_image_tokens": "1600", "expansion_tokens": "{}", "capabilities": ""}
    form |= {"released_at_0": "2026-01-01", "released_at_1": "00:00:00"}
    for inline in ("aliases", "routes"):
        form |= {f"{inline}-TOTAL_FORMS": "0", f"{inline}-INITIAL_FORMS": "0"}
    asked = otto.post(path, form)
    assert asked.status_code == 200
    assert f"{model.model_id} (404, off sale)" in asked.content.decode()
    assert "changed successfully" not in asked.content.decode()
    model.refresh_from_db()
    assert model.is_enabled
    again = {name: field.initial for name, field in asked.context["form"].fields.items()}
    assert otto.post(path, again).status_code == 302
    model.refresh_from_db()
    assert (model.is_enabled, model.display_name) == (False, "New")


def test_health_is_shown_reset_and_asked_for(version: PriceVersion, otto: Client, fay: Client) -> None:
    told = [UpstreamHealth("acme", "breaker", 60_000), UpstreamHealth("acme", "credential ab12", 60_000)]
    run_script(SCRIPT, [KEY], _arguments(told))
    upstream = Upstream.objects.get()
    for path in ("/admin/billing/upstream/", page("upstream", upstream.pk)):
        shown = otto.get(path).content.decode()
        assert "breaker open" in shown
        assert "suspended credential ab12" in shown
    assert otto.post(page("upstream", upstream.pk, "reset")).status_code == 302
    assert read_upstream_health() == []
    answer = otto.post(page("upstream", upstream.pk, "test-call"), follow=True)
    assert "No connection could be made" in [str(said) for said in answer.context["messages"]][-1]
    for button in ("reset", "test-call", "disable", "enable"):
        assert fay.post(page("upstream", upstream.pk, button)).status_code == 403


def test_the_mail_of_drafts_says_what_they_are_and_is_not_sent_when_they_are_decided(version: PriceVersion) -> None:
    fay = make_operator("fay", StaffRole.FINANCE)
    draft = PriceDraft(timezone.now(), "a list", timezone.now().date(), {"input": ((0, 1),), "output": ((0, 2),)})
    drafts = [draft_price(version.language_model, draft, created_by="job:price_drift") for _ in range(2)]
    tell_who_may_approve(drafts)
    mail = OutgoingMail.objects.get()
    message = render_mail(mail)
    assert message.subject == "CrossModel: 2 prices wait for a second person"
    for words in ("job:price_drift drafted", version.language_model.model_id, "state=draft"):
        assert words in str(message.body)
    approve_price_version(drafts[0], approved_by=str(fay), decided_by=fay)
    assert f"/admin/billing/priceversion/{drafts[1].pk}/change/" in str(render_mail(mail).body)
    approve_price_version(drafts[1], approved_by=str(fay), decided_by=fay)
    with pytest.raises(NotWorthTellingError):
        render_mail(mail)


def test_a_draft_is_discarded_and_stands_in_lists_page_and_audit(
    version: PriceVersion, otto: Client, fay: Client
) -> None:
    draft = PriceDraft(timezone.now(), "a list", timezone.now().date(), {"input": ((0, 1),), "output": ((0, 2),)})
    unwanted = draft_price(version.language_model, draft, created_by="job:price_drift")
    discard = page("priceversion", unwanted.pk, "discard")
    assert discard not in otto.get(page("priceversion", unwanted.pk)).content.decode()
    refused = otto.post(discard, {"reason": "a typo"}, follow=True).content.decode()
    assert "does not discard what others drafted" in refused
    assert discard in fay.get(page("priceversion", unwanted.pk)).content.decode()
    assert fay.post(discard, {"reason": ""}).status_code == 422
    assert "is discarded" in fay.post(discard, {"reason": "a typo"}, follow=True).content.decode()
    shown = fay.get(page("priceversion", unwanted.pk)).content.decode()
    for words in ("Discarded", "a typo", "fay@example.org"):
        assert words in shown
    for button in ("approve", "discard"):
        assert page("priceversion", unwanted.pk, button) not in shown
    entry = AuditEntry.objects.get(subject_table="billing_priceversion", subject_id=unwanted.pk, action="changed")
    changes = {change.name: change.after for line in describe([entry]) for change in line.changes}
    assert (changes["discarded by"], changes["discard reason"]) == ("fay@example.org", "a typo")
    counted = {
        state: len(fay.get("/admin/billing/priceversion/", {"state": state}).context["cl"].result_list)
        for state in ("draft", "scheduled", "approved", "discarded", "nonsense")
    }
    assert counted == {"draft": 0, "scheduled": 0, "approved": 1, "discarded": 1, "nonsense": 2}
