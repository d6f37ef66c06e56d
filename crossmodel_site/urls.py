"""The URL map of pages and the JSON API. `/v1/` never comes here: see crossmodel_site.asgi."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path
from django.urls.resolvers import URLPattern, URLResolver
from drf_spectacular.views import SpectacularAPIView

from billing.urls import api_urlpatterns
from crossmodel_site import health

# Operators sign in where everybody does, under the same limits.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("accounts.urls")),
    path("", include("billing.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api_urlpatterns)),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/hello", health.healthz),  # Claude Code asks here whether there is anything at its base URL.
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
]

handler400 = "crossmodel_site.error_pages.bad_request"
handler404 = "crossmodel_site.error_pages.not_found"
handler500 = "crossmodel_site.error_pages.server_error"
