"""A dataset's way to the Hub: whole or not at all, also when it is cut, and never twice."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from pydantic import SecretStr

from tasks.core.errors import HubError, UsageError
from tasks.core.hub.card import render_card
from tasks.core.hub.upload import AGAIN, Uploaded, check_target, upload
from tests.core.hub.datasets import REPO, SPREAD, config_of, exported, facts_of
from tests.core.hub.loading import loaded, ran
from tests.core.hub.server import READER, TOKEN, CutError, Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.core.export.rows import Exported
    from tests.core.hub.server import Hub


def sent(
    files: Exported,
    repo: str = REPO,
    *,
    token: str = TOKEN,
    public: bool = False,
    card: str = "",
    **tell: Any,
) -> Uploaded:
    """The export, sent."""
    card = card or render_card(facts_of(files))
    told: Callable[[str], None] = tell.get("tell", lambda _: None)
    return upload(files, card, repo, SecretStr(token), public=public, environ=os.environ, tell=told)


def contents(files: Exported) -> dict[str, str]:
    """The path of each file with the SHA-256 of what it holds."""
    return {
        file.path: hashlib.sha256((files.folder / file.path).read_bytes()).hexdigest() for file in files.files
    }


def held(hub: Hub, repo: str = REPO) -> dict[str, str]:
    """The same of the data that the Hub shows."""
    found = hub.repositories[repo].files.items()
    return {path: hashlib.sha256(data).hexdigest() for path, data in found if path.startswith("data/")}


def refused(hub: Hub, files: Exported, **how: Any) -> str:
    """What an upload that fails says; it says it on one line, and shows no secret."""
    with pytest.raises(HubError) as raised:
        sent(files, **how)
    said = str(raised.value)
    assert said.isprintable()
    assert TOKEN not in said
    assert "secret" not in said
    assert REPO not in hub.repositories or held(hub) == {}
    return said


def outcome(files: Exported) -> str:
    """What an upload says when it fails, "" when it does not."""
    try:
        sent(files)
    except HubError as error:
        return str(error)
    return ""


def test_every_file_is_there_in_one_commit(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    told: list[str] = []
    done = sent(files, tell=told.append)
    repository = hub.repositories[REPO]
    assert held(hub) == contents(files)
    assert repository.files["README.md"].decode() == render_card(facts_of(files))
    assert (len(repository.commits), repository.private) == (2, True)
    assert done == Uploaded(
        REPO,
        f"{hub.url}/datasets/{REPO}",
        repository.head,
        private=True,
        created=True,
        changed=True,
        files=5,
        removed=0,
    )
    assert [line.partition(":")[0] for line in told] == [f"file {number} of 4" for number in (1, 2, 3, 4)]


def test_the_same_again_sends_nothing_and_makes_no_commit(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    first = sent(files)
    arrived = hub.arrived
    again = sent(files)
    assert (again.commit, again.changed, again.created) == (first.commit, False, False)
    assert (hub.arrived, len(hub.repositories[REPO].commits)) == (arrived, 2)


@pytest.mark.parametrize("part_size", [1 << 40, 500])
@pytest.mark.parametrize("cut_at", [0, 700, 1_500, 3_000])
def test_cut_anywhere_it_goes_on_where_it_was(hub: Hub, tmp_path: Path, part_size: int, cut_at: int) -> None:
    files = exported(tmp_path)
    hub.part_size = part_size

    def cut(_: int) -> None:
        if hub.arrived >= cut_at:
            raise CutError

    hub.at_piece = cut
    said = refused(hub, files)
    assert "the Hub cannot be reached (" in said
    assert said.endswith(AGAIN)
    whole = set(hub.objects)
    # The library tries a file again by itself before it gives up; none of it counts.
    hub.at_piece, hub.uploads = lambda _: None, []
    sent(files)
    assert held(hub) == contents(files)
    assert not any(oid in path for oid in whole for path in hub.uploads), "what was whole is sent once"
    assert len(hub.repositories[REPO].commits) == 2


def test_a_short_cut_is_not_even_noticed(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    cuts = iter([True, True])

    def cut(read: int) -> None:
        if read and next(cuts, False):
            raise CutError

    hub.at_piece = cut
    sent(files)
    assert held(hub) == contents(files)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    sent(files)
    lost = hub.repositories[REPO]
    # As it stands when the connection was gone between the commit and its answer.
    again = sent(files)
    assert (len(lost.commits), again.changed) == (2, False)


def test_an_older_export_leaves_nothing_behind(hub: Hub, tmp_path: Path) -> None:
    sent(exported(tmp_path / "old", {("dpo", "train"): [9, 9, 9], ("kto", "train"): [8]}))
    foreign = "data/notes/train-00000-of-00001.parquet"
    hub.repositories[REPO].files[foreign] = b"the owner's own"
    new = exported(tmp_path / "new", mark="newer")
    done = sent(new)
    assert held(hub).keys() == {*contents(new), foreign}
    assert (done.removed, len(hub.repositories[REPO].commits)) == (4, 3)


def test_what_is_there_already_keeps_its_visibility(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    told: list[str] = []
    hub.repositories[REPO] = Repository(private=False)
    done = sent(files, tell=told.append)
    assert (done.private, done.created, hub.repositories[REPO].private) == (False, False, False)
    assert told[0] == f"{REPO} is there already, and stays public"
    hub.repositories[REPO] = Repository(private=True)
    assert sent(files, public=True, tell=told.append).private
    assert f"{REPO} is there already, and stays private" in told


def test_public_is_what_is_made_public(hub: Hub, tmp_path: Path) -> None:
    assert sent(exported(tmp_path), public=True).private is False
    assert hub.repositories[REPO].private is False


def test_downloaded_it_loads_in_every_configuration_and_split(hub: Hub, tmp_path: Path) -> None:
    sent(exported(tmp_path / "export"))
    found = loaded(hub, tmp_path / "home")
    expected: dict[str, dict[str, int]] = {}
    for (configuration, split), shards in SPREAD.items():
        expected.setdefault(configuration, {})[split] = sum(shards)
    assert found == expected | {"": expected["dpo"]}


def test_the_snippet_of_the_card_works(hub: Hub, tmp_path: Path) -> None:
    sent(exported(tmp_path / "export"))
    card = hub.repositories[REPO].files["README.md"].decode()
    snippet = card.partition("```python\n")[2].partition("```")[0]
    assert (
        ran(hub, tmp_path / "home", f"{snippet}\nprint(len(dpo['train']), len(native['train']))") == "50 4\n"
    )


# What may go wrong


def test_without_a_token_or_a_name_nothing_is_tried(hub: Hub) -> None:
    with pytest.raises(UsageError, match=r"there is no token .* HF_TOKEN"):
        check_target(REPO, None)
    with pytest.raises(UsageError, match="no repository is named; give --repo"):
        check_target("", SecretStr(TOKEN))
    for name in (
        "tides",
        "a/b/c",
        "ada/",
        "/tides",
        "ada/ti des",
        "ada/a--b",
        "ada/a..b",
        "ada/x.git",
        "a/b\n",
        "ada/é",
    ):
        with pytest.raises(UsageError, match="is no name of a repository"):
            check_target(name, SecretStr(TOKEN))
    for name in ("ada/tides", "Ada-Lovelace/fantasy_fiction.v2", "a/b"):
        assert check_target(name, SecretStr(TOKEN)).get_secret_value() == TOKEN
    assert hub.asked == []


def test_a_wrong_token_a_reader_and_a_foreign_owner(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    said = refused(hub, files, token=TOKEN.lower())
    assert said.startswith("the Hub does not know the token: Invalid credentials")
    assert "HF_TOKEN" in said
    foreign = refused(hub, files, repo="bob/tides")
    assert foreign.startswith("the token may not write to bob/tides: You don't have the rights")
    assert "--repo" in foreign
    hub.repositories[REPO] = Repository(private=False)
    assert refused(hub, files, token=READER).startswith(
        f"the token may not write to {REPO}: You have read access"
    )


REFUSALS = {
    ("POST .*/commit/main", 412, "A commit has happened since."): "somebody else changed ada/tides meanwhile",
    ("POST .*/batch", 403, "Private repository storage limit reached"): "there is no room for ada/tides",
    ("POST .*/commit/main", 507, ""): "there is no room for ada/tides",
    ("POST .*/repos/create", 402, "Payment required"): "there is no room for ada/tides",
    ("POST .*/repos/create", 400, "Invalid name"): "the Hub does not accept ada/tides: Invalid name",
    ("POST .*/repos/create", 418, "No tea"): "the Hub refused ada/tides (HTTP 418): No tea",
    ("POST .*/preupload/main", 429, "Slow down"): "the Hub wants fewer requests: Slow down",
    ("POST .*/preupload/main", 503, ""): "the Hub has trouble of its own (HTTP 503)",
    ("POST .*/preupload/main", 404, ""): "the Hub has no dataset ada/tides that this token may see",
    ("POST .*/verify", 409, "taken"): "the name ada/tides is taken: taken",
}


@pytest.mark.parametrize("answer", REFUSALS)
def test_what_the_hub_refuses_is_said_in_one_line(
    hub: Hub, tmp_path: Path, answer: tuple[str, int, str]
) -> None:
    place, status, message = answer
    hub.answers[place] = (status, {"X_Error_Message": message}, {"error": message})
    assert refused(hub, exported(tmp_path)).startswith(REFUSALS[answer])
    hub.answers.clear()
    sent(exported(tmp_path))
    assert len(held(hub)) == 4


def test_a_full_storage_that_is_told_file_by_file(hub: Hub, tmp_path: Path) -> None:
    files = exported(tmp_path)
    oid = next(iter(contents(files).values()))
    error = {"code": 403, "message": "You have exceeded your public storage space"}
    hub.answers["POST .*/batch"] = (200, {}, {"objects": [{"oid": oid, "size": 1, "error": error}]})
    assert refused(hub, files).startswith("there is no room for ada/tides: ")


@pytest.mark.parametrize("answer", [b"<html>Sign in to the hotel's network</html>", {}, [], None, "x"])
@pytest.mark.parametrize(
    "place", ["GET .*/tides", "POST .*/create", "POST .*/main", "POST .*/batch", "POST .*yaml"]
)
def test_a_server_that_is_no_hub_brings_no_traceback(
    hub: Hub, tmp_path: Path, place: str, answer: Any
) -> None:
    hub.answers[place] = (200, {}, answer)
    said = outcome(exported(tmp_path))
    assert said.isprintable()
    assert said.startswith(("", f"{REPO} was not uploaded: ")[bool(said)])


def test_hostile_words_of_a_server_stay_on_one_line(hub: Hub, tmp_path: Path) -> None:
    hostile = f"\x1b[2J\u202e line\nline https://user:pw@host/?sig=secret Bearer {TOKEN} " * 50
    hub.answers["GET .*/tides"] = (500, {}, {"error": hostile})
    said = refused(hub, exported(tmp_path))
    assert "pw" not in said
    assert len(said) < 500


def test_no_network_and_no_wish_for_one(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = exported(tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        assert (
            refused(hub, files)
            == "HF_HUB_OFFLINE is set, and without the network nothing can be uploaded; unset it"
        )
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused(hub, files).startswith("the Hub cannot be reached (")
    assert hub.asked == []


def test_a_card_that_the_hub_does_not_accept_is_told_before_anything_is_made(
    hub: Hub, tmp_path: Path
) -> None:
    files = exported(tmp_path)
    config = config_of(huggingface__license="no-such-licence")
    said = refused(hub, files, card=render_card(facts_of(files, config, license=config.huggingface.license)))
    assert '"license" must be one of' in said
    assert hub.repositories == {}
