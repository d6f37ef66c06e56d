"""The URL map of `/v1/` and of what else must know the request path, served by the lean handler."""

from django.urls import path

from gateway.views.count_tokens import count_tokens
from gateway.views.estimate import estimate
from gateway.views.language_models import list_language_models, show_language_model
from gateway.views.messages import create_message

urlpatterns = [
    path("v1/messages", create_message),
    path("v1/messages/count_tokens", count_tokens),
    path("api/v1/estimate", estimate),
    path("v1/models", list_language_models),
    path("v1/models/<path:model_id>", show_language_model),
]
