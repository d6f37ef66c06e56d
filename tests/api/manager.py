"""A program that manages an organization over `/api/v1/`, as its tests drive it."""

import json
from typing import Any

from django.test import Client

from accounts.keys import create_key
from accounts.models import Organization, Role, User


class Manager:
    def __init__(self, organization: Organization, *, role: Role = Role.OWNER, person: User | None = None) -> None:
        self.organization = organization
        self.key, self.secret = create_key(
            organization, name="Terraform", created_by=person, is_management=True, role=role
        )
        self._client = Client(raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return the answer to a call; `path` is what follows `/api/v1/`."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.generic(
            method,
            f"/api/v1/{path}",
            content,
            content_type="application/json",
            headers={"authorization": f"Bearer {self.secret}", **headers},
        )

    def get(self, path: str) -> Any:
        """Return the body of what is there."""
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def do(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return the body of a call that must work."""
        answer = self.call(method, path, body, **headers)
        assert answer.status_code < 300, answer.content
        return answer.json()

    def refusal(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Return status and code of a call that must not work, and has the documented form."""
        answer = self.call(method, path, body, **headers)
        error = answer.json()
        assert set(error) == {"type", "error", "request_id"}, error
        assert error["request_id"] == answer["request-id"]
        return answer.status_code, error["error"]["code"]
