"""The URL map of pages and the JSON API. `/v1/` and probes never come here: see crossmodel_site.asgi."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path
from django.urls.resolvers import URLPattern, URLResolver

from api import payment_webhooks, reference
from api.schema_view import SchemaView
from operations.scanning import receive_found_keys

# Operators sign in where everybody does, under the same limits.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("console.urls")),
    path("accounts/", include("allauth.urls")),
    path("admin/", include("operations.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("api.urls")),
    path("v1/organizations/", include("api.report_urls")),
    path("webhooks/<slug:provider>/", payment_webhooks.receive, name="payment_webhook"),
    path("secret-scanning/github/", receive_found_keys, name="secret_scanning"),
    path("reference/api/", reference.reference, name="api_reference"),
    path("llms.txt", reference.llms, name="llms"),
    path("api/schema/", SchemaView.as_view(), name="schema"),
]

handler400 = "crossmodel_site.error_pages.bad_request"
handler404 = "crossmodel_site.error_pages.not_found"
handler500 = "crossmodel_site.error_pages.server_error"
