"""Names that people read, as the glossary has them. Django's state only: no table changes."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0009_usage_corrections")]

    operations = [
        migrations.AlterModelOptions(name="rerating", options={"ordering": ["-id"], "verbose_name": "re-rating"}),
        migrations.AlterModelOptions(
            name="reratedrequest", options={"ordering": ["id"], "verbose_name": "re-rated request"}
        ),
        migrations.AlterField(
            model_name="priceversion",
            name="source",
            field=models.CharField(help_text="Where the prices were taken from.", max_length=300),
        ),
    ]
