"""Pages that only ask "are you sure" have one shape: Operations ask by one function, and nothing is done by looking."""

from pathlib import Path

from operations.admin import base

ADMIN = Path(base.__file__).parent


def test_whoever_asks_a_question_asks_by_one_function() -> None:
    told = [path.name for path in sorted(ADMIN.glob("*.py")) if "QuestionForm" in path.read_text()]
    assert told == ["base.py"]
