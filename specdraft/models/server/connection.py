"""Requests to a server: retried, in one clear line where they come to nothing, and without the key in any text."""

from __future__ import annotations

import json
import os
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from specdraft.errors import AnswerError, ServerError
from specdraft.models.spec import ServerSpec

if TYPE_CHECKING:
    import openai

KEYS = ("SPECDRAFT_API_KEY", "OPENAI_API_KEY")
NO_KEY = "none"  # what is sent to servers that ask for none: the client library wants something
MOST_LETTERS = 200  # of what a server says of an error
REFUSED = (401, 403)


class StatusError(AnswerError):
    """A server's refusal of one request. Args: status: of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """One server.

    Args:
        spec: where it is.
        key: the config key to name in errors, as `pair.target.server`.
    """

    def __init__(self, spec: ServerSpec, key: str) -> None:
        self._spec, self._key = spec, key

    @property
    def name(self) -> str:
        """The server in a line for people."""
        return f"{self._key}.url={self._spec.url}"

    @property
    def unversioned(self) -> bool:
        """Whether the address lacks what those of such APIs end with."""
        return not self._spec.url.rstrip("/").endswith("/v1")

    def get(self, path: str, native: bool = False) -> Any:
        """The JSON below a path; `native`: outside of `/v1`, where servers have what is their own.

        Raises:
            ServerError: nobody answers, or the key is refused.
            AnswerError: another refusal, or no JSON.
        """
        return self._ask("get", path, native, {})

    def post(self, path: str, body: dict[str, Any], native: bool = False) -> Any:
        """The JSON that a body is answered with. Raises as `get`."""
        return self._ask("post", path, native, {"body": body})

    def close(self) -> None:
        """End what is under way."""
        self._client.close()

    def _ask(self, method: str, path: str, native: bool, options: dict[str, Any]) -> Any:
        import openai

        client = self._native if native else self._client
        try:
            text: str = getattr(client, method)(path, cast_to=str, **options)
        except openai.APITimeoutError as error:
            raise AnswerError(f"{self.name}: {path} took longer than timeout_s={self._spec.timeout_s:g}") from error
        except openai.APIConnectionError as error:
            raise ServerError(f"{self.name}: nobody answers there ({self._without_key(self._cause(error))})") from error
        except openai.APIStatusError as error:
            self._refused(path, error)
        return self._read(path, text)

    def _refused(self, path: str, error: openai.APIStatusError) -> NoReturn:
        status = error.status_code
        if status in REFUSED:
            variable = self._variable or KEYS[0]
            raise ServerError(
                f"{self.name}: the key is refused ({status}); expected it in the environment variable {variable}"
            ) from error
        after = f" after {self._spec.retries} retries" if status in (408, 409, 429) or status >= 500 else ""
        raise StatusError(f"{self.name}: {path} answers {status}{after}: {self._said(error)}", status) from error

    def _said(self, error: openai.APIStatusError) -> str:
        """What a server says of an error, in one line, without the key."""
        said: Any = error.body
        text = (said.get("message") if isinstance(said, dict) else said) or error.response.text
        return self._without_key(" ".join(str(text).split()))[:MOST_LETTERS] or "no reason"

    def _without_key(self, text: str) -> str:
        return text if self._secret == NO_KEY else text.replace(self._secret, "***")

    def _read(self, path: str, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            start = self._without_key(" ".join(text.split()))[:40]
            raise AnswerError(f"{self.name}: {path} answers no JSON (it begins with {start!r})") from error

    @staticmethod
    def _cause(error: BaseException) -> str:
        """The innermost reason."""
        while error.__cause__ or error.__context__:
            error = error.__cause__ or error.__context__ or error
        return getattr(error, "strerror", None) or str(error) or type(error).__name__

    @property
    def _variable(self) -> str | None:
        """The environment variable that holds a key; None: there is none."""
        names = KEYS if self._spec.key_env is None else (self._spec.key_env,)
        return next((name for name in names if os.environ.get(name)), None)

    @property
    def _secret(self) -> str:
        """Raises `ServerError` for what no header can hold, which is not repeated."""
        if not self._variable:
            return NO_KEY
        key = os.environ[self._variable].strip()
        if not (key.isascii() and key.isprintable()):
            raise ServerError(
                f"{self._key}: the key in the environment variable {self._variable} is no printable ASCII"
            )
        return key

    @cached_property
    def _client(self) -> openai.OpenAI:
        if find_spec("openai") is None:
            raise ServerError(f"{self.name} needs openai (install the extra: pip install 'specdraft[server]')")
        import openai

        if self._spec.key_env is not None and not self._variable:
            raise ServerError(f"{self._key}.key_env={self._spec.key_env}: there is no such environment variable")
        return openai.OpenAI(
            base_url=self._spec.url,
            api_key=self._secret,
            timeout=self._spec.timeout_s,
            max_retries=self._spec.retries,
        )

    @cached_property
    def _native(self) -> openai.OpenAI:
        root = self._spec.url.rstrip("/").removesuffix("/v1")
        return self._client.with_options(base_url=root)
