"""How the admin looks: django-unfold's settings."""

from django.templatetags.static import static

UNFOLD = {
    "SITE_TITLE": "CrossModel",
    "SITE_HEADER": "CrossModel",
    "SITE_SUBHEADER": "Operations",
    "SITE_ICON": lambda request: static("icon.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("icon.svg")}],
    "STYLES": [lambda request: static("admin.css")],
    "SCRIPTS": [lambda request: static("admin.js")],
    "SIDEBAR": {"navigation": "operations.menu.make_menu"},
    "DASHBOARD_CALLBACK": "operations.dashboard.add_dashboard",
    "COLORS": {
        # The green of static/crossmodel.css.
        "primary": {
            "50": "#eef8f3",
            "100": "#d8efe4",
            "200": "#b2dfc9",
            "300": "#83c8a8",
            "400": "#52ab86",
            "500": "#2f8f6b",
            "600": "#17694c",
            "700": "#0f543b",
            "800": "#0d4432",
            "900": "#0b382a",
            "950": "#052018",
        }
    },
}
