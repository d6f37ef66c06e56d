"""A pytest plugin for the official SDK's own tests: their clients use our key. The base URL they read themselves."""

import os
import sys

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    sys.modules["tests.conftest"].api_key = os.environ["CROSSMODEL_KEY"]
