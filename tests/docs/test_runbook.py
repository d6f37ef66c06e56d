"""Every command that docs/operating.md names is taken by the real one, and runs here unless it changes the world."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.core.management import CommandError, call_command, get_commands, load_command_class

from accounts.models import User
from billing.models import PriceVersion, UsageRecord
from operations.job_work import WORK
from operations.jobs import BY_NAME
from operations.management.progress import show_progress
from tests.support.people import People, make_person
from tests.support.settled_usage import billed_event, sell_model, settle

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operating.md").read_text()
SPAN = re.compile(r"`([^`]*manage\.py [^`]+)`")
# What stands for something in the document, and what stands for it here.
SAMPLES = {
    "ORG": "alice-ltd", "SLUG": "alice-ltd", "EMAIL": "operator@example.org", "AMOUNT": "1.50", "N": "1", "ID": "1",
    "DATE": "2026-11-01", "DAY": "2026-11-01", "DAYS": "30", "FILE": "billing/catalog/default.toml", "TEXT": "why",
    "FILE...": "billing/catalog/default.toml", "NAME": "sandbox", "PREFIX": "cm-abcdefgh", "WHERE": "somewhere",
    "cm-XXXXXXXX": "cm-abcdefgh", "TAX_ID": "DE123456789", "...": "why", "ADDRESS": "operator@example.org",
    "REQUEST_ID": "0" * 32,
}  # fmt: skip
MODEL_ID = "acme/large"


def commands() -> list[str]:
    found = set()
    for span in SPAN.findall(TEXT):
        text = " ".join(span.replace("[", "").replace("]", "").replace("--settle or --discard", "--settle").split())
        found.add(text[text.index("manage.py ") + len("manage.py ") :].replace("ID ...", "ID"))
    return sorted(found)


def arguments_of(text: str) -> list[str]:
    words = shlex.split(text)
    if words[0] == "run_job":
        return ["traffic" if word == "NAME" else word for word in words]
    for at, word in enumerate(words):
        if word in ("--model", "--to"):
            words[at + 1] = MODEL_ID if word == "--model" else "2026-11-02"
    return [SAMPLES.get(word, word) for word in words]


def test_the_runbook_names_many_commands() -> None:
    assert len(commands()) > 40
    assert {"status", "refund", "rerate", "replay_spool", "reseal_secrets", "revoke_key", "migrate"} <= {
        text.split()[0] for text in commands()
    }


@pytest.mark.parametrize("text", commands())
def test_each_command_takes_what_the_runbook_gives_it(text: str) -> None:
    """The real command's own parser; a wrong option or word ends it."""
    name, *arguments = arguments_of(text)
    command = load_command_class(get_commands()[name], name)
    parser = command.create_parser("manage.py", name)
    if arguments or not any(action.required for action in parser._actions):
        needed = ["--reason", "why"] if "--reason" in text and "why" not in arguments else []
        parser.parse_args([*arguments, *needed])


@pytest.fixture
def world(people: People, redis_client: redis.Redis) -> tuple[User, PriceVersion, UsageRecord]:
    """An installation in which something was used."""
    operator = make_person("operator", is_staff=True, is_superuser=True)
    version = sell_model(MODEL_ID)
    settle([billed_event(people.key, version)])
    return operator, version, UsageRecord.objects.get()


@pytest.mark.django_db
def test_what_only_looks_is_run(world: tuple[User, PriceVersion, UsageRecord], people: People) -> None:
    ran = []
    for text in commands():
        name, *arguments = arguments_of(text)
        words = set(arguments)
        looks = words & {"--dry-run", "--plan", "--json", "--deploy"} or (
            name in ("status", "margin", "approve_prices", "reconcile", "resolve_quarantine", "revoke_key", "rerate")
            and not words & {"--yes", "--apply", "--settle", "--discard", "--actor", "--fetch", "-"}
        )
        if not looks or (name == "revoke_key" and arguments == []):
            continue
        arguments = [people.key.prefix if word == SAMPLES["PREFIX"] else word for word in arguments]
        if name == "resolve_quarantine":
            arguments = []
        if "--price-version" in arguments:
            arguments[arguments.index("--price-version") + 1] = str(world[1].pk)
        out = io.StringIO()
        if name in ("status", "reconcile"):  # They end so where a person should look, and here nothing runs.
            with contextlib.suppress(SystemExit, CommandError):
                call_command(name, *arguments, stdout=out, stderr=out)
        else:
            call_command(name, *arguments, stdout=out, stderr=out)
        ran.append(text)
    assert len(ran) > 12, ran


@pytest.mark.django_db
@pytest.mark.usefixtures("world")
def test_each_job_shows_what_it_would_do_and_does_it() -> None:
    """The registry, the command and the calendar name the same jobs; a dry run writes nothing."""
    assert WORK.keys() == BY_NAME.keys()
    calendar = TEXT[TEXT.index("| job | when |") : TEXT.index("The calendar:")]
    rows = [line.split("|")[1] for line in calendar.splitlines()[2:] if line]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(BY_NAME)
    out = io.StringIO()
    for name in WORK:
        call_command("run_job", name, "--dry-run", stdout=out)
    shown = out.getvalue()
    assert "would count minutes from" in shown
    assert not WORK.keys() - {line.split()[0] for line in listed().splitlines()}
    for name in ("traffic", "retention", "maintenance", "documents"):
        call_command("run_job", name, stdout=out)
        assert f"{name} is done." in out.getvalue()


def listed() -> str:
    out = io.StringIO()
    call_command("run_job", stdout=out)
    return out.getvalue()


def test_a_bar_is_for_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, pipe = Terminal(), io.StringIO()
    assert list(show_progress(iter("abc"), total=3, stream=screen)) == ["a", "b", "c"]
    assert screen.getvalue().endswith("[##############################] 3 of 3\n")
    assert list(show_progress(iter("abc"), total=3, stream=pipe)) == ["a", "b", "c"]
    assert pipe.getvalue() == ""


def test_every_secret_of_ours_has_a_row_for_its_rotation() -> None:
    document = (ROOT / "docs/settings.md").read_text()
    named = re.findall(r"^\| `(\w*(?:SECRET|PASSWORD|TOKEN|_URL)\w*)` \|", document, re.MULTILINE)
    section = TEXT[TEXT.index("### A secret must be rotated") :]
    holds_a_secret = {name for name in named if not name.startswith("CROSSMODEL") or not name.endswith("_URL")}
    of_tests = {"CROSSMODEL_PAYMENT_SANDBOX_SECRET", "DJANGO_SECRET_KEY_FALLBACKS"}
    ordinary = {"CROSSMODEL_COUNT_TOKENS_PER_MINUTE", "CROSSMODEL_BYTES_PER_INPUT_TOKEN"}
    assert {name for name in holds_a_secret - of_tests - ordinary if f"`{name}`" not in section} == set()
    assert settings.SECRET_KEY_FALLBACKS == []
