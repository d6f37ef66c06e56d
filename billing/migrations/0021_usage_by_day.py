"""Usage and refusals summed by day: what pages read. What older processes write on a running system counts too.

Days are kept by triggers of the hours, so that workers of the version before keep them as well. Writers of usage hours
wait while the hours that are there are summed.
"""

from django.db import migrations, models

ID = ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))
COUNTS = ("requests", "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens", "cost_nanos")
TIMES = ("timed_requests", "first_byte_ms", "duration_ms")
SUMMED = (*COUNTS, "upstream_cost_nanos", *TIMES)
ALL = ", ".join(SUMMED)

DAYS = f"""
    CREATE FUNCTION usage_sum_days() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO billing_usageday AS day (organization_id, day, key_id, model_id, {ALL})
                SELECT organization_id, (hour AT TIME ZONE 'UTC')::date, key_id, model_id,
                    {", ".join(f"sum({name})" for name in SUMMED)}
                FROM added GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
                ON CONFLICT (organization_id, day, key_id, model_id) DO UPDATE
                SET {", ".join(f"{name} = day.{name} + excluded.{name}" for name in SUMMED)};
        ELSE
            INSERT INTO billing_usageday AS day (organization_id, day, key_id, model_id, {ALL})
                SELECT organization_id, (hour AT TIME ZONE 'UTC')::date, key_id, model_id,
                    {", ".join(f"sum({name})" for name in SUMMED)}
                FROM (SELECT organization_id, hour, key_id, model_id, {ALL} FROM added UNION ALL
                    SELECT organization_id, hour, key_id, model_id, {", ".join(f"-{name}" for name in SUMMED)}
                    FROM taken) changed
                GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
                ON CONFLICT (organization_id, day, key_id, model_id) DO UPDATE
                SET {", ".join(f"{name} = day.{name} + excluded.{name}" for name in SUMMED)};
        END IF;
        RETURN NULL;
    END $$;
    LOCK TABLE billing_usagehour IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO billing_usageday (organization_id, day, key_id, model_id, {ALL})
        SELECT organization_id, (hour AT TIME ZONE 'UTC')::date, key_id, model_id,
            {", ".join(f"sum({name})" for name in SUMMED)}
        FROM billing_usagehour GROUP BY 1, 2, 3, 4;
    CREATE TRIGGER summed_in AFTER INSERT ON billing_usagehour REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION usage_sum_days();
    CREATE TRIGGER summed_again AFTER UPDATE ON billing_usagehour REFERENCING NEW TABLE AS added OLD TABLE AS taken
        FOR EACH STATEMENT EXECUTE FUNCTION usage_sum_days();
"""  # noqa: S608  Constants of this file.

# Of each row, in the order in which rows are written: gateways sort them, so that two do not wait for each other.
REFUSALS = """
    CREATE FUNCTION usage_count_refusals() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO billing_refusedday AS counted (organization_id, day, error_code, requests)
            VALUES (NEW.organization_id, (NEW.refused_at AT TIME ZONE 'UTC')::date, NEW.error_code,
                CASE TG_OP WHEN 'INSERT' THEN 1 + NEW.repeats ELSE NEW.repeats - OLD.repeats END)
            ON CONFLICT (organization_id, day, error_code) DO UPDATE
            SET requests = counted.requests + EXCLUDED.requests;
        RETURN NULL;
    END $$;
    LOCK TABLE billing_refusedrequest IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO billing_refusedday (organization_id, day, error_code, requests)
        SELECT organization_id, (refused_at AT TIME ZONE 'UTC')::date, error_code, sum(1 + repeats)
        FROM billing_refusedrequest GROUP BY 1, 2, 3;
    CREATE TRIGGER counted_in AFTER INSERT ON billing_refusedrequest
        FOR EACH ROW EXECUTE FUNCTION usage_count_refusals();
    CREATE TRIGGER counted_again AFTER UPDATE OF repeats ON billing_refusedrequest
        FOR EACH ROW WHEN (NEW.repeats <> OLD.repeats) EXECUTE FUNCTION usage_count_refusals();
"""


def sums(names: tuple[str, ...]) -> list[tuple[str, models.Field]]:  # type: ignore[type-arg]
    return [(name, models.BigIntegerField(default=0)) for name in names]


def once(name: str, *fields: str) -> dict[str, object]:
    return {"ordering": ["-day"], "constraints": [models.UniqueConstraint(fields=fields, name=name)]}


class Migration(migrations.Migration):
    dependencies = [("billing", "0020_indexes_of_keys_and_credit")]

    operations = [
        migrations.CreateModel(
            name="UsageDay",
            fields=[
                ID,
                ("organization_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("key_id", models.BigIntegerField()),
                ("model_id", models.CharField(max_length=100)),
                *sums(SUMMED),
            ],
            options=once("usage_day_once", "organization_id", "day", "key_id", "model_id"),
        ),
        migrations.CreateModel(
            name="AttributedDay",
            fields=[
                ID,
                ("organization_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("end_user", models.CharField(max_length=256)),
                ("tag", models.CharField(max_length=64)),
                ("session", models.CharField(max_length=128)),
                ("key_id", models.BigIntegerField()),
                ("model_id", models.CharField(max_length=100)),
                *sums((*COUNTS, *TIMES)),
            ],
            options=once(
                "attributed_day_once", "organization_id", "day", "end_user", "tag", "session", "key_id", "model_id"
            ),
        ),
        migrations.CreateModel(
            name="RefusedDay",
            fields=[
                ID,
                ("organization_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("error_code", models.CharField(max_length=60)),
                *sums(("requests",)),
            ],
            options=once("refused_day_once", "organization_id", "day", "error_code"),
        ),
        migrations.AddField(
            "requestdetail",
            "is_attributed",
            models.BooleanField(db_default=False, help_text="Its usage record counts in AttributedDay."),
        ),
        *(migrations.AddField("usagehour", name, models.BigIntegerField(db_default=0)) for name in TIMES),
        migrations.RunSQL(DAYS, migrations.RunSQL.noop),
        migrations.RunSQL(REFUSALS, migrations.RunSQL.noop),
    ]
