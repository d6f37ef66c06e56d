"""Columns for end user, tag and session. They have defaults in Postgres: processes that do not know them go on."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0017_automatic_top_ups")]

    operations = [
        migrations.AddField("refusedrequest", "end_user", models.CharField(blank=True, db_default="", max_length=256)),
        migrations.AddField("refusedrequest", "session", models.CharField(blank=True, db_default="", max_length=128)),
        migrations.AddField("refusedrequest", "tag", models.CharField(blank=True, db_default="", max_length=64)),
        migrations.AddField("requestdetail", "session", models.CharField(blank=True, db_default="", max_length=128)),
        migrations.AddField("requestdetail", "tag", models.CharField(blank=True, db_default="", max_length=64)),
        migrations.AlterField(
            "requestdetail",
            "end_user",
            models.CharField(blank=True, help_text="Named by metadata.user_id of the request.", max_length=256),
        ),
    ]
