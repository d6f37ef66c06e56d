"""What is in quarantine and what an organization's prices were multiplied by stays as it was written.

An event in quarantine is perhaps the only trace of a request that somebody has to pay for: it is resolved, once, and
never deleted. A price factor says what records were rated by; another one begins later.
"""

from django.db import migrations

GUARD = """
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_usagequarantine FOR EACH ROW
        WHEN (ROW(OLD.id, OLD.shard, OLD.stream_id, OLD.raw_event, OLD.reason, OLD.created_at) IS DISTINCT FROM
              ROW(NEW.id, NEW.shard, NEW.stream_id, NEW.raw_event, NEW.reason, NEW.created_at)
            OR (OLD.resolved_at IS NOT NULL AND ROW(OLD.resolved_at, OLD.resolution, OLD.resolution_reason)
                IS DISTINCT FROM ROW(NEW.resolved_at, NEW.resolution, NEW.resolution_reason)))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_usagequarantine
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_usagequarantine EXECUTE FUNCTION ledger_refuse_truncate();
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_organizationpricefactor FOR EACH ROW
        WHEN (ROW(OLD.id, OLD.organization_id, OLD.factor_ppm, OLD.effective_from, OLD.effective_to, OLD.created_at)
            IS DISTINCT FROM
              ROW(NEW.id, NEW.organization_id, NEW.factor_ppm, NEW.effective_from, NEW.effective_to, NEW.created_at))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_organizationpricefactor
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_organizationpricefactor
        EXECUTE FUNCTION ledger_refuse_truncate();
"""
NO_GUARD = """
    DROP TRIGGER terms_are_fixed ON billing_usagequarantine;
    DROP TRIGGER kept ON billing_usagequarantine;
    DROP TRIGGER never_emptied ON billing_usagequarantine;
    DROP TRIGGER terms_are_fixed ON billing_organizationpricefactor;
    DROP TRIGGER kept ON billing_organizationpricefactor;
    DROP TRIGGER never_emptied ON billing_organizationpricefactor;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0036_price_drafts_can_be_discarded")]
    operations = [migrations.RunSQL(GUARD, NO_GUARD)]
