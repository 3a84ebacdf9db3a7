"""llmock: exact rows under each of its faults, and its own verdict on the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.command import PROGRAM, config, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.flows.command import User
    from tests.servers.conftest import Mock

PROMPTS = [
    "A keeper finds a letter in the lamp room and cannot tell who wrote it.",
    "Two sisters row out to the rock to put the lantern right before dawn.",
    "The fog bell rings by itself, and nobody in the village will say why.",
    "An inspector counts the oil barrels and comes to one more than there are.",
    "A drowned clock is pulled from the nets and is still telling the time.",
    "The relief boat is late by a month, and the stores hold out for a week.",
    "Someone has painted the tower black in a single night without a ladder.",
    "A gull that speaks wants to be paid for what it has seen from above.",
]
CHOSEN = "\n".join(f"{number}. {prompt}" for number, prompt in enumerate(PROMPTS, 1))
"""What the main model always writes: a list where one is asked for, and a text where one is."""
REJECTED = "There was a lamp. It went out, and then it was lit again by somebody."
ROWS = [{"prompt": prompt, "chosen": CHOSEN, "rejected": REJECTED} for prompt in PROMPTS]

FAULTS: dict[str, list[dict[str, Any]]] = {
    "limited": [
        {"type": "fail", "status": 429, "retry_after": 0.6, "times": 3},
        {"type": "fail", "status": 503, "retry_after": 0.4, "times": 2},
    ],
    "failing": [{"type": "fail", "status": status} for status in (500, 502, 504, 529, 408, 409)],
    "broken streams": [
        {"type": "stream_fault", "kind": "disconnect", "after_chunks": 1, "times": 2},
        {"type": "stream_fault", "kind": "truncate", "after_chunks": 3, "times": 2},
        {"type": "stream_fault", "kind": "malformed", "after_chunks": 2, "times": 2},
    ],
    "slow": [
        {"type": "delay", "seconds": 0.3, "times": 3},
        {"type": "slow_first_token", "seconds": 0.3, "times": 3},
        {"type": "stream_fault", "kind": "stall", "stall_seconds": 30, "times": 1},
    ],
}


def settings(server: Mock, *, streaming: bool = False) -> str:
    """A configuration whose answers are all known."""
    models = "max_retries = 6\nmax_backoff_seconds = 1\nhttp_timeout_seconds = 3\nstructured_output = 'off'"
    return config(
        server.url,
        subtopics=1,
        prompts=len(PROMPTS),
        models=f"{models}\nuse_streaming = {str(streaming).lower()}",
        generation="similarity_threshold = 1",
        replaced=True,
    )


def play(server: Mock, *faults: dict[str, Any]) -> None:
    """Queue faults before the answers."""
    answers = {"strong-writer": CHOSEN, "weak-writer": REJECTED}
    server.play(
        *faults,
        *(
            {"type": "reply", "text": text, "times": None, "match": {"model": model}}
            for model, text in answers.items()
        ),
    )


def check_verdict(server: Mock) -> None:
    """See that it has nothing to say about the client."""
    verdict = server.verdict()
    # Whether two pauses with jitter look alike is chance; that there are some, is not.
    findings = [finding for finding in verdict["findings"] if "constant interval" not in finding["title"]]
    assert (verdict["passed"], findings) == (True, [])


@pytest.mark.parametrize("faults", FAULTS)
def test_rows_are_exact_under_faults_and_the_client_does_right(user: User, mock: Mock, faults: str) -> None:
    user.write("config.toml", settings(mock, streaming="stream" in faults or faults == "slow"))
    play(mock, *FAULTS[faults])
    ended = user.run("run", "--json", program=PROGRAM)
    assert ended.code == 0, ended
    assert rows_of(user.sessions()[0]) == ROWS
    assert mock.pending() == []
    check_verdict(mock)


def test_a_quota_is_kept_to(user: User, mocks: Callable[..., AbstractContextManager[Mock]]) -> None:
    """Thirteen requests at once, then one in 4.6 seconds, waited for with or without a refusal."""
    with mocks("--rpm", "13") as server:
        user.write("config.toml", settings(server))
        play(server)
        ended = user.run("run", "--json", program=PROGRAM)
        assert ended.code == 0, ended
        assert rows_of(user.sessions()[0]) == ROWS
        assert server.verdict()["attempts"] > 13
        check_verdict(server)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "API key expired. Please renew the API key."),
        (402, "Your account has no credit left."),
        (403, "Your account is suspended."),
        (422, "Budget has been exceeded for this key."),
    ],
)
def test_after_a_refusal_for_all_a_plain_resume_has_every_row(
    user: User, mock: Mock, status: int, message: str
) -> None:
    """Every rejected answer is refused, until somebody mends it."""
    user.write("config.toml", settings(mock))
    model = {"model": "weak-writer"}
    play(mock, {"type": "fail", "status": status, "message": message, "times": None, "match": model})
    ended = user.run("run", program=PROGRAM)
    assert ended.code == 3, ended
    assert message in ended.err
    (session,) = user.sessions()

    play(mock)
    again = user.run("checkpoint", "resume", session.name, "--json", program=PROGRAM)
    assert again.code == 0, again
    assert rows_of(session) == ROWS
    check_verdict(mock)
