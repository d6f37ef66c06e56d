"""What no linter holds: small files, telling names, no trace of a workplace, documents that keep their word."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_LINES = 400
MAX_TEMPLATE_COLUMNS = 120
# Written by a tool or generated, and read by nobody in one go.
LONG_ON_PURPOSE = re.compile(r"(/migrations/\d{4}_\w+\.py|\.lock$|/vendor/|\.json|catalog/default\.toml)")
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager2"}
TEXT_SUFFIXES = {".py", ".lua", ".html", ".css", ".js", ".md", ".toml", ".txt", ".lock", ".yml", ".yaml", ".sh", ""}
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home/\w|root/|Users/\w|work/(?:main|shared))")
# What a browser begins a new line or row for. Words and what stands among them may share a line.
BLOCK_ELEMENT = re.compile(
    r"<(?:article|aside|caption|dd|details|div|dl|dt|fieldset|figure|footer|form|h[1-6]|header|legend|li|link|main|meta"
    r"|nav|ol|p|pre|script|section|summary|table|tbody|td|tfoot|th|thead|tr|ul)\b"
)
SUBSCRIPTED_FORM = re.compile(r"\(forms\.ModelForm\[")


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_a_file_is_split_before_it_passes_the_limit() -> None:
    lengths = {
        name_of(path): path.read_text(encoding="utf-8").count("\n")
        for path in tracked_files()
        if path.suffix in TEXT_SUFFIXES and not LONG_ON_PURPOSE.search("/" + name_of(path))
    }
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_forms_name_their_model_in_a_way_that_runs() -> None:
    """A type checker takes `forms.ModelForm[Key]`; Django does not, and only pages.forms lets it run."""
    sources = [path for path in tracked_files() if path.suffix == ".py"]
    assert [name_of(path) for path in sources if SUBSCRIPTED_FORM.search(path.read_text())] == []
    assert SUBSCRIPTED_FORM.search("class KeyForm(forms.ModelForm" + "[Key]):")


def test_templates_have_one_element_a_line() -> None:
    """Each block begins on a line of its own; words, links and the like may follow on it."""
    wide, crowded = [], []
    templates = [path for path in tracked_files() if path.suffix == ".html"]
    for path in templates:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > MAX_TEMPLATE_COLUMNS:
                wide.append(f"{name_of(path)}:{number}")
            if len(BLOCK_ELEMENT.findall(line)) > 1:
                crowded.append(f"{name_of(path)}:{number}: {line.strip()}")
    assert len(templates) > 30
    assert (wide, crowded) == ([], [])


def test_every_module_is_named_for_what_is_in_it() -> None:
    assert [name_of(path) for path in tracked_files() if path.stem in EMPTY_NAMES] == []


def test_no_file_names_a_machine() -> None:
    found = []
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{name_of(path)}:{number}" for number, line in enumerate(lines, 1) if MACHINE_PATHS.search(line)]
    assert found == []


def test_every_link_in_a_document_leads_somewhere() -> None:
    documents = [path for path in tracked_files() if path.suffix == ".md"]
    broken = []
    for document in documents:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text(encoding="utf-8")):
            if not (document.parent / target).exists():
                broken.append(f"{name_of(document)}: {target}")
    assert broken == []


def test_the_locks_agree() -> None:
    """What `make run` installs is a part, at the same versions, of what the tests ran with."""
    everything, run = (
        set(re.findall(r"^[a-z0-9][^ ;\\]*==[^ ;\\]+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-run.lock")
    )
    assert run - everything == set()
    assert {line.split("==")[0] for line in everything - run} >= {"pytest", "mypy", "ruff"}
