"""The URL map of pages and the JSON API. `/v1/` and probes never come here: see crossmodel_site.asgi."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path
from django.urls.resolvers import URLPattern, URLResolver
from drf_spectacular.views import SpectacularAPIView

from billing.urls import api_urlpatterns

# Operators sign in where everybody does, under the same limits.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("accounts.urls")),
    path("", include("billing.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api_urlpatterns)),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
]

handler400 = "crossmodel_site.error_pages.bad_request"
handler404 = "crossmodel_site.error_pages.not_found"
handler500 = "crossmodel_site.error_pages.server_error"
