"""The groups that staff roles are. What they permit stands in accounts/staff_roles.py, not here."""

from typing import Any

from django.db import migrations

ROLES = ("support", "finance", "operations")


def make_groups(apps: Any, schema_editor: Any) -> None:
    group = apps.get_model("auth", "Group")
    for name in ROLES:
        group.objects.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0009_budgets_that_only_notify"), ("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        migrations.AlterModelOptions(
            name="organization",
            options={
                "ordering": ["name"],
                "permissions": [
                    ("suspend_organization", "Can suspend and reopen an organization"),
                    ("view_as_member", "Can look at the console as a member sees it"),
                ],
            },
        ),
        migrations.RunPython(make_groups, migrations.RunPython.noop),
    ]
