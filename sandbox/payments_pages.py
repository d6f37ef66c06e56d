"""The pages of the sandbox payment provider: the pay page for a seller's customer, and its own list of payments."""

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from sandbox.payments import DECLINED, paid_cents, refunded_cents
from sandbox.payments_store import Checkout

STYLE = """
    :root { color-scheme: light dark; --line: light-dark(#dcdfe4, #3a3f47); --quiet: light-dark(#5b6472, #a3abb8); }
    * { box-sizing: border-box; }
    body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: light-dark(#f4f5f7, #15181c);
        color: light-dark(#171a1f, #eceef1); }
    .notice { background: #7a4d00; color: #fff; text-align: center; padding: .5rem 1rem; font-size: .875rem; }
    main { max-width: 27rem; margin: 2.5rem auto; padding: 0 1rem; } main.wide { max-width: 70rem; }
    .card { background: light-dark(#fff, #1e2227); border: 1px solid var(--line); border-radius: 12px;
        padding: 1.75rem; }
    .quiet { color: var(--quiet); } h1 { font-size: 1.125rem; margin: 0 0 .25rem; }
    .amount { font-size: 2.25rem; font-weight: 650; margin: .25rem 0 1.25rem; font-variant-numeric: tabular-nums; }
    form { display: grid; gap: .625rem; margin: 0; } td form { display: flex; flex-wrap: wrap; gap: .25rem; }
    button, .button { font: inherit; padding: .625rem 1rem; border-radius: 8px; border: 1px solid var(--line);
        width: 100%; background: transparent; color: inherit; cursor: pointer; text-align: center;
        text-decoration: none; }
    button.primary { background: #17694c; border-color: #17694c; color: #fff; font-weight: 600; }
    td button { padding: .125rem .5rem; font-size: .8125rem; width: auto; }
    table { border-collapse: collapse; width: 100%; font-size: .875rem; }
    th, td { text-align: left; padding: .5rem .625rem; border-top: 1px solid var(--line); vertical-align: top; }
    .frame { overflow-x: auto; } .number { text-align: right; font-variant-numeric: tabular-nums; }
    a { color: light-dark(#17694c, #83c8a8); } .rule { border: 0; border-top: 1px solid var(--line); margin: .5rem 0; }
"""
NOTICE = "Sandbox payments: no card is asked for, and no money moves."


def pay_page(checkout: Checkout) -> str:
    """What a customer sees; what they choose is what the provider does."""
    if checkout["status"] != "open":
        return _ended_page(checkout)
    is_card = checkout["mode"] == "card"
    title = "Keep a card for automatic top-ups" if is_card else checkout["description"]
    amount = "" if is_card else f'<p class="amount">{_usd(checkout)}</p>'
    if is_card:
        buttons = _button("pay", "Keep the card ending in 4242", primary=True) + _button(
            "keep_declining", "Keep the card ending in 0002, which will be declined"
        )
    else:
        buttons = (
            _button("pay", f"Pay {_usd(checkout)}", primary=True)
            + _button("later", "Pay by bank debit (the money comes later)")
            + _button("decline", "Pay with a card that is declined")
            + _button("free", "Use a voucher of 100 %")
        )
    back = f'<a class="button quiet" href="{escape(checkout["cancel_url"])}">Back without paying</a>'
    body = f"""<main><div class="card"><h1>{escape(title)}</h1>
        <p class="quiet">{escape(checkout["email"])}</p>{amount}
        <form method="post">{buttons}<hr class="rule">{back}</form></div></main>"""
    return _page(title, body)


def declined_page(checkout: Checkout) -> str:
    """A declined card fails nothing: the customer may try another, as at real payment pages."""
    body = f"""<main><div class="card"><h1>{DECLINED}</h1>
        <p class="quiet">Nothing was paid. Try another way, or go back.</p>
        <form method="get"><button class="primary">Try again</button>
        <a class="button quiet" href="{escape(checkout["cancel_url"])}">Back without paying</a></form></div></main>"""
    return _page("Declined", body)


def payments_page(checkouts: Sequence[Checkout], events: Sequence[dict[str, Any]]) -> str:
    """What the provider's own people see, with what they can do to a payment."""
    rows = "".join(_row(checkout) for checkout in checkouts) or '<tr><td colspan="6">No payments yet.</td></tr>'
    sent = "".join(
        f"<tr><td>{_time(event['created'])}</td><td>{escape(event['type'])}</td>"
        f"<td>{escape(event['checkout'].get('description', ''))}</td><td class='number'>{event['attempts']}</td>"
        f"<td>{'heard' if event['delivered'] else 'waits'}, {escape(event['last_status'] or 'not sent yet')}</td></tr>"
        for event in events
    )
    body = f"""<main class="wide"><div class="card"><h1>Payments</h1><div class="frame"><table>
        <tr><th>Time</th><th>What</th><th class="number">Amount</th><th>State</th>
        <th>Refunds, disputes</th><th></th></tr>
        {rows}</table></div></div><br><div class="card"><h1>Webhooks</h1><div class="frame"><table>
        <tr><th>Time</th><th>Event</th><th>What</th><th class="number">Attempts</th><th>State</th></tr>{sent}
        </table></div></div></main>"""
    return _page("Payments", body)


def message_page(text: str) -> str:
    return _page(text, f'<main><div class="card"><h1>{escape(text)}</h1></div></main>')


def _ended_page(checkout: Checkout) -> str:
    words = {"paid": "This is paid.", "processing": "The payment is on its way.", "failed": "This payment failed."}
    body = f"""<main><div class="card"><h1>{words[checkout["status"]]}</h1>
        <p class="quiet">{escape(checkout["description"])}</p>
        <a class="button" href="{escape(checkout["return_url"])}">Back to the seller</a></div></main>"""
    return _page(words[checkout["status"]], body)


def _row(checkout: Checkout) -> str:
    steps: list[tuple[str, str]] = []
    if checkout["status"] == "processing":
        steps = [("arrive", "Money arrives"), ("bounce", "Debit fails")]
    elif checkout["status"] == "paid" and checkout.get("charge"):
        left = paid_cents(checkout) - refunded_cents(checkout)
        is_disputed = any(dispute["status"] == "needs_response" for dispute in checkout["disputes"])
        steps = [("win", "Seller wins"), ("lose", "Seller loses")] if is_disputed else []
        if left and not is_disputed:
            steps += [("refund_half", "Refund half"), ("refund", "Refund"), ("dispute", "Dispute")]
        if refunded_cents(checkout):
            steps.append(("fail_refund", "Refund fails"))
    buttons = "".join(f'<button name="step" value="{step}">{label}</button>' for step, label in steps)
    told = [f"{item['status']} {item['amount_cents'] / 100:.2f}" for item in checkout.get("refunds", ())]
    told += [f"dispute {item['status']}" for item in checkout.get("disputes", ())]
    what = checkout.get("description", "")
    return f"""<tr><td>{_time(checkout["created"])}</td><td>{escape(what)}</td>
        <td class="number">{_usd(checkout)}</td><td>{escape(checkout["status"])}</td><td>{escape(", ".join(told))}</td>
        <td><form method="post"><input type="hidden" name="checkout" value="{escape(checkout["id"])}">{buttons}</form>
        </td></tr>"""


def _button(action: str, label: str, *, primary: bool = False) -> str:
    return f'<button name="action" value="{action}"{" class=primary" if primary else ""}>{escape(label)}</button>'


def _usd(checkout: Checkout) -> str:
    return f"{checkout['amount_cents'] / 100:,.2f} {escape(checkout['currency'].upper())}"


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _page(title: str, body: str) -> str:
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)} · Sandbox payments</title>
        <meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>
        <div class="notice">{NOTICE}</div>{body}</html>"""
