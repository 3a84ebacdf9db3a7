"""`vellumforge2 validate`: what it shows, what it exits with, and that it makes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.flows.command import PROGRAM, config, free_port, model

if TYPE_CHECKING:
    from tests.flows.command import User

KEY = "sk-hidden-hidden-hidden"


def test_a_configuration_is_shown_and_its_models_are_asked(lone_user: User) -> None:
    with model() as server:
        headers = '[models.main.headers]\nX-Gateway-Key = "${GATEWAY_KEY}"\n'
        lone_user.write("config.toml", config(server.url, more=headers))
        secrets = {"API_KEY": KEY, "GATEWAY_KEY": KEY}
        told = lone_user.run("validate", "--ping", program=PROGRAM, **secrets)
        assert (told.code, told.err) == (0, "")
        assert "config.toml is valid: mode dpo, 3 x 2 = 6 prompts" in told.out
        assert "key: API_KEY" in told.out
        assert "further headers: X-Gateway-Key" in told.out
        assert 'Generate 2 writing prompts for subtopic: "(a subtopic)".' in told.out
        assert told.out.count(": answers in ") == 2
        document = json.loads(lone_user.run("validate", "--ping", "--json", program=PROGRAM, **secrets).out)
        main, rejected = document["models"]
        assert (main["purposes"], rejected["purposes"]) == (["subtopics", "prompts", "chosen"], ["rejected"])
        assert (main["key"], main["ping"]["error"], main["ping"]["structure"]) == (
            "API_KEY",
            "",
            "json_schema",
        )
        assert [request["purpose"] for request in document["requests"]][-1] == "rejected"
        assert KEY not in told.out + json.dumps(document)

        server.start(fail_models="weak-writer")
        failed = lone_user.run("validate", "--ping", program=PROGRAM, **secrets)
        assert failed.code == 3
        assert "weak-writer: does not answer: " in failed.out
        assert "HTTP 404: The model `weak-writer` does not exist" in failed.out
    assert [path.name for path in lone_user.folder.iterdir()] == ["config.toml"]


def test_without_ping_no_model_is_asked(lone_user: User) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    lone_user.write("config.toml", config(address, generation="reasoning_capture_rejected = true"))
    told = lone_user.run("validate", program=PROGRAM)
    assert told.code == 0
    assert "no key: none of API_KEY is set, and none is sent" in told.out
    assert "warning: generation.reasoning_capture_rejected has no effect" in told.out
    assert [path.name for path in lone_user.folder.iterdir()] == ["config.toml"]


def test_what_cannot_be_used_is_named(lone_user: User) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    for models, reason in (
        ("temperature = 9", "models.main.temperature: is 9; allowed: 0 to 2"),
        ('api_key_env = "MY_KEY"', "api_key_env of strong-writer names MY_KEY, which neither"),
        ('headers = {X-A = "${MY_A}"}', "headers of strong-writer names MY_A, which neither"),
    ):
        lone_user.write("config.toml", config(address, models=models))
        told = lone_user.run("validate", program=PROGRAM)
        assert (told.code, told.out) == (2, "")
        assert reason in told.err
    assert [path.name for path in lone_user.folder.iterdir()] == ["config.toml"]
