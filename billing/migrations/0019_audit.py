"""What the audit watches of billing: prices, the catalog, terms of organizations, and what operators decide.

Never what settlement or a request writes: debits are the ledger's, and a row here for each would double every write.
"""

from django.db import migrations

WATCH = """
    SELECT audit_watch('billing_upstream', 'id', '', '', '');
    SELECT audit_watch('billing_languagemodel', 'id', '', '', '');
    SELECT audit_watch('billing_languagemodelalias', 'id', '', '', '');
    SELECT audit_watch('billing_route', 'id', '', '', '');
    SELECT audit_watch('billing_priceversion', 'id', '', '', '');
    SELECT audit_watch('billing_organizationpricefactor', 'id', 'organization_id', '', '');
    SELECT audit_watch('billing_recurringcredit', 'id', 'organization_id', '', '');
    SELECT audit_watch('billing_automatictopup', 'organization_id', 'organization_id',
        'failures,next_attempt_at,reason,changed_at', 'customer_id,method_id,card_reference');
    SELECT audit_watch('billing_alertsettings', 'organization_id', 'organization_id', '', '');
    SELECT audit_watch('billing_webhookendpoint', 'id', 'organization_id', 'failing_since',
        'sealed_secret,sealed_previous_secret');
    SELECT audit_watch('billing_redemptioncode', 'id', '', 'redemption_count', 'code_sha256');
    SELECT audit_watch('billing_paymentrefund', 'id', '', '', 'idempotency_key');
    SELECT audit_watch('billing_paymentbreak', 'id', '', '', '');
    SELECT audit_watch('billing_reconciliationbreak', 'id', '', 'last_seen_at', '');
    SELECT audit_watch('billing_usagequarantine', 'id', '', 'raw_event', '');
    SELECT audit_watch('billing_rerating', 'id', '', '', '');
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0018_end_user_tag_and_session"), ("accounts", "0008_audit")]

    operations = [migrations.RunSQL(WATCH, migrations.RunSQL.noop)]
