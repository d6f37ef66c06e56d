"""Pages about people. Every page of an organization names it in the URL: `/console/<slug>/...`."""

from django.urls import path

from accounts.views import invitations, keys, landing, members, organization

urlpatterns = [
    path("", landing.landing, name="landing"),
    path("reference/", landing.api_docs, name="api_docs"),
    path("console/", landing.console, name="console"),
    path("organizations/new/", landing.organization_new, name="organization_new"),
    path("invitations/<str:token>/", invitations.invitation, name="invitation"),
    path("console/<slug:slug>/keys/", keys.keys, name="keys"),
    path("console/<slug:slug>/keys/new/", keys.key_new, name="key_new"),
    path("console/<slug:slug>/keys/<int:key_id>/", keys.key_edit, name="key_edit"),
    path("console/<slug:slug>/keys/<int:key_id>/revoke/", keys.key_revoke, name="key_revoke"),
    path("console/<slug:slug>/settings/", organization.organization_settings, name="organization_settings"),
    path("console/<slug:slug>/members/", members.members, name="members"),
    path(
        "console/<slug:slug>/invitations/<int:invitation_id>/withdraw/",
        members.invitation_withdraw,
        name="invitation_withdraw",
    ),
    path("console/<slug:slug>/members/<int:member_id>/role/", members.member_role, name="member_role"),
    path("console/<slug:slug>/members/<int:member_id>/remove/", members.member_remove, name="member_remove"),
]
