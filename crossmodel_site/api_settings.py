"""How DRF and drf-spectacular are set up for `/api/`."""

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["api.parsing.StrictJsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "api.errors.answer_exception",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "CrossModel API",
    "DESCRIPTION": "Keys, limits, money, documents, members, webhooks. Amounts are US dollars, exact,"
    " as decimal strings; times are ISO 8601 in UTC; every error has one form.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": ["api.schema.complete"],
}
