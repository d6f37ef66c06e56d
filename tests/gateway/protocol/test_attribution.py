"""Whom a request is counted for: from a user id as clients send it, and from headers as anybody may write them."""

import json

import pytest

from gateway.protocol.messages.attribution import read_attribution, read_user_id

DEVICE, ACCOUNT, SESSION = "ab" * 32, "1f0e7c1e-65a4-4d0c-8d7e-000000000001", "1f0e7c1e-65a4-4d0c-8d7e-000000000002"


@pytest.mark.parametrize(
    ("user_id", "named"),
    [
        ("alice@example.org", ("alice@example.org", "")),
        (" me\x00\nhere\u202e ", ("mehere", "")),
        ("x" * 300, ("x" * 256, "")),
        ("", ("", "")),
        # Claude Code, with a key and with an account, and as it was before.
        (json.dumps({"device_id": DEVICE, "account_uuid": "", "session_id": SESSION}), (DEVICE, SESSION)),
        (json.dumps({"device_id": DEVICE, "account_uuid": ACCOUNT, "session_id": SESSION}), (ACCOUNT, SESSION)),
        (f"user_{DEVICE}_account__session_{SESSION}", (DEVICE, SESSION)),
        (f"user_{DEVICE}_account_{ACCOUNT}_session_{SESSION}", (ACCOUNT, SESSION)),
        (f"user_{DEVICE}_account_{'a' * 3_000}_session_{SESSION}", ("a" * 256, SESSION)),
        # What only looks like it stays what it is.
        ('{"session_id": 1}', ('{"session_id": 1}', "")),
        ("{broken", ("{broken", "")),
        ("[1]", ("[1]", "")),
        ("user_7_session_8", ("user_7_session_8", "")),
    ],
)
def test_a_user_id_names_an_end_user_and_perhaps_a_session(user_id: str, named: tuple[str, str]) -> None:
    assert read_user_id(user_id) == named


def test_our_session_header_wins_over_claude_codes_and_that_over_the_body() -> None:
    ours, theirs = {"HTTP_X_CROSSMODEL_SESSION": "ours"}, {"HTTP_X_CLAUDE_CODE_SESSION_ID": "theirs"}
    assert read_attribution({**theirs, **ours}, "", "body").session == "ours"
    assert read_attribution(theirs, "", "body").session == "theirs"
    assert read_attribution({"HTTP_X_CROSSMODEL_SESSION": " "}, "", "body").session == "body"
    assert read_attribution({}, "", "body") == ("", "", "body")


def test_headers_are_cut_printable_and_utf8() -> None:
    written = "Suche-Süd".encode().decode("latin-1")
    assert read_attribution({"HTTP_X_CROSSMODEL_TAG": written}, "", "").tag == "Suche-Süd"
    assert read_attribution({"HTTP_X_CROSSMODEL_TAG": "\tteam a\x7f" + "x" * 99}, "", "").tag == "team a" + "x" * 58
    assert len(read_attribution({"HTTP_X_CROSSMODEL_SESSION": "s" * 999}, "", "").session) == 128
