"""Everything that can go wrong, in one tree.

VellumforgeError            exit code 1: broken machinery, raised and shown as one line
├── UsageError              2: what the user gave cannot be used; nothing was created
│   └── ConfigError         2: the same, with one problem a line
│       └── TemplateError   2: a prompt template that cannot be translated
├── ModelError              2: a model that the run needs cannot be used; only small questions were paid for
├── LintError               1: a dataset has more of a defect than is allowed
├── LedgerError             1: the ledger cannot be opened, read or written
├── SessionError            1: the session folder cannot be made, found or written
├── HubError                1: the Hugging Face Hub did not take a dataset, or not yet
├── CallError               a model call that ended without an answer; becomes a Failure (data)
│   ├── RefusedError        the server refuses the request; whether for what is in it, is seen later
│   └── UnusableAnswerError an answer came and was paid for, and cannot be used; becomes a Failure
├── PhaseError              3: a phase cannot go on (too many failures); the ledger keeps what it has
│   └── LossError           3: almost every prompt yields no usable pair, for one cause
├── UnfinishedError         3: the run went through, and not every row came about
├── EndpointError           3: a model that nothing can be had from until somebody does something about it
├── BudgetError             3: what the session may spend is spent; the ledger keeps what it brought
└── RunInterrupted          130 or 143: SIGINT or SIGTERM

Errors of other packages are translated at the boundary where they enter: HTTP in `chat/http.py`, the
database in `ledger/schema.py`, the file system in `session/`, the Hub in `hub/upload.py`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import ClassVar


class VellumforgeError(Exception):
    """The root: one line that says what is wrong, where, and what to do; or such a line for each thing.

    Attributes:
        lines: The lines. What stands between two of them is ours, and a line break in one of them is not.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, *lines: object) -> None:
        self.lines = tuple(map(str, lines))
        super().__init__(*lines)

    def __str__(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


class UsageError(VellumforgeError):
    """What the user gave on the command line or in a file cannot be used."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        key: Dotted path of the setting, e.g. `generation.concurrency`; "" for the file as a whole.
        message: What is wrong and what is allowed, e.g. "is 0; allowed: 1 to 1024".
    """

    key: str
    message: str

    def __str__(self) -> str:
        """`key: message`, or the message alone."""
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigError(UsageError):
    """A configuration that cannot be used, with all its problems at once.

    Attributes:
        source: The file's path as the user gave it, or what else the settings came from.
        problems: At least one.
    """

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(*(f"{source}: {problem}" for problem in problems))


class TemplateError(ConfigError):
    """A prompt template that cannot be translated or names an unknown variable."""


class ModelError(VellumforgeError):
    """A model cannot be used for what the run needs it for: found out before anything else is paid for."""

    exit_code = 2


class LintError(VellumforgeError):
    """A dataset has more of a defect than `--fail-on` allows."""


class LedgerError(VellumforgeError):
    """The ledger cannot be opened, read or written: the run must stop paying at once."""


class SessionError(VellumforgeError):
    """A session folder that cannot be made, found or written."""


class HubError(VellumforgeError):
    """The Hugging Face Hub did not take a dataset: nothing of it is seen there, and it can be sent again."""


class CallError(VellumforgeError):
    """A model call that ended without an answer.

    Attributes:
        cause: A short stable word for lists and statistics: `timeout`, `connection`, `http_500`,
            `rate_limited`, `malformed_response`, `question_refused`, `refused`, `too_short`, `incomplete`,
            `empty`, `token_exhaustion`, `no_list`, `bad_scores`.
        status: The HTTP status of the last attempt, or None when there was no response.
        attempts: Attempts made, counted from 1.
        request: The request's ledger key in hex, "" until it is known.
    """

    def __init__(
        self, cause: str, message: str, *, status: int | None = None, attempts: int = 1, request: str = ""
    ) -> None:
        self.cause = cause
        self.status = status
        self.attempts = attempts
        self.request = request
        super().__init__(message)


class RefusedError(CallError):
    """A server refuses a request, and a status does not tell whether it refuses this one or all of them.

    Attributes:
        about_content: Whether the server says that it is for what is in it: its content, or its length.
    """

    about_content = False


class UnusableAnswerError(CallError):
    """An answer that was paid for and cannot be used, after every allowed try.

    Attributes:
        answer: What the model answered last, in place of an empty answer its reasoning; "" until it is known.
    """

    answer: str = ""


class PhaseError(VellumforgeError):
    """A phase that cannot go on; what was paid for is in the ledger."""

    exit_code = 3


class LossError(PhaseError):
    """Almost every prompt yields no usable pair, for one cause: to pay on would bring nothing."""


class UnfinishedError(VellumforgeError):
    """The run went through to its end, and not every row that was asked for came about.

    Attributes:
        tries_used_up: Whether all that is missing are answers that cannot be used and whose tries are all
            paid for: a resume would read the same ones, and a retry asks for others.
    """

    exit_code = 3

    def __init__(self, message: str, *, tries_used_up: bool = False) -> None:
        self.tries_used_up = tries_used_up
        super().__init__(message)


class EndpointError(VellumforgeError):
    """Nothing can be had from a model: a wrong key, an unknown name, a server that is gone; the run stops."""

    exit_code = 3


class BudgetError(VellumforgeError):
    """What the session may spend is spent: nothing more was paid for, and what was is in the ledger."""

    exit_code = 3


class RunInterrupted(VellumforgeError):  # noqa: N818 - an interruption is not an error of the program
    """The run was stopped by a signal; `exit_code` is 128 plus the signal's number."""

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # per instance on purpose
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name}; every answer that was paid for is in the ledger")
