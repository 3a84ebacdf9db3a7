"""A session that came from elsewhere brings answers, never orders: a hostile archive, and the good ways."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from flows.checking import check_run, take_keys
from flows.commands.app import main
from flows.request import RunRequest
from tasks.core.config.load import load_config
from tasks.core.errors import UsageError
from tasks.core.session.record import read_record
from tests.flows.command import PROGRAM, User, config, rows_of
from tests.flows.test_secrets_nowhere import gossip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.flows.command import Ended
    from tests.flows.test_secrets_nowhere import Gossip

NAME = "session_of_mallory"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "HF_TOKEN": "hf_plantedHubToken",
    "DATABASE_URL": "postgresql://ada:planted-password@db/ada",
    "OPENAI_API_KEY": "sk-planted-openai",
}
HEADERS = {"X-Hub": "${HF_TOKEN}", "X-Database": "at ${DATABASE_URL}", "X-Plain": "hello"}


@dataclass(frozen=True)
class Hostile:
    """An archive whose settings give orders, and what they name.

    Attributes:
        archive: The archive.
        server: The model server that they name.
        text: A configuration file of the user's own that says the same about the outcome.
        outside: The folder in which they want to write.
    """

    archive: Path
    server: Gossip
    text: str
    outside: Path

    @property
    def orders(self) -> list[str]:
        """How what its settings say is shown."""
        outside = self.outside
        return [
            f'models.main.base_url = "{self.server.url}" (model "strong-writer", its key from API_KEY)',
            'models.main.api_key_env = "AWS_SECRET_ACCESS_KEY" (not followed: AWS_SECRET_ACCESS_KEY is no',
            'models.main.headers.X-Hub = "${HF_TOKEN}" (not followed: HF_TOKEN is no key of that',
            'models.main.headers.X-Database = "at ${DATABASE_URL}" (not followed: DATABASE_URL is no key',
            'models.main.headers.X-Plain = "hello"',
            f'models.rejected.base_url = "{self.server.url}" (model "weak-writer", its key from API_KEY)',
            f'models.judge.base_url = "{self.server.url}" (model "critic", its key from API_KEY)',
            "execution.shards = 2 (not followed: its pairs are made by one process, with the ledger here)",
            'execution.work_pool = "theirs" (not followed:',
            f'output.folder = "{outside}/folder" (not followed: the session stays where it is)',
            f'output.ledger = "sqlite:///{outside}/ledger.db" (not followed: its answers are in the ledger',
            f'output.mirror = "file://{outside}/mirror"',
            'huggingface.repo_id = "mallory/loot"',
        ]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Iterator[Hostile]:
    """An unfinished session of somebody else's."""
    home = tmp_path_factory.mktemp("mallory")
    mallory = User.made(home, PREFECT_API_URL=prefect_url, PREFECT_HOME=str(home / "prefect"))
    outside = home / "outside"
    with gossip() as server:
        text = config(server.url, subtopics=2, prompts=2)
        mallory.write("config.toml", text)
        assert mallory.run().code == 0
        (session,) = mallory.sessions()
        made = mallory.run("checkpoint", "export", session.name, "--to", "made.zip", program=PROGRAM)
        assert made.code == 0, made.err
        orders = {
            "models.main.api_key_env": "AWS_SECRET_ACCESS_KEY",
            "models.main.headers": HEADERS,
            "generation.num_subtopics": 3,
            "execution.shards": 2,
            "execution.work_pool": "theirs",
            "output.mirror": f"file://{outside}/mirror",
            "output.ledger": f"sqlite:///{outside}/ledger.db",
            "output.folder": f"{outside}/folder",
            "huggingface.repo_id": "mallory/loot",
        }
        archive = rewritten(mallory.folder / "made.zip", home / "hostile.zip", orders, complete=False)
        yield Hostile(archive, server, text.replace("num_subtopics = 2", "num_subtopics = 3"), outside)


def rewritten(source: Path, target: Path, settings: dict[str, Any], **record: Any) -> Path:
    """A copy of an archive whose record has other settings."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(content)
                for key, value in settings.items():
                    *sections, last = key.split(".")
                    table = manifest["record"]["settings"]
                    for section in sections:
                        table = table.setdefault(section, {})
                    table[last] = value
                manifest["record"] |= record
                content = json.dumps(manifest).encode()
            new.writestr(name, content)
    return target


@dataclass
class Victim:
    """Somebody who brought the archive in, into an empty folder, with secrets in the environment."""

    user: User
    server: Gossip
    outside: Path
    asked: int = field(default=0)

    def run(self, *words: str, **variables: str) -> Ended:
        return self.user.run(*words, program=PROGRAM, **variables)

    @property
    def session(self) -> Path:
        return self.user.folder / "output" / NAME

    def is_unharmed(self) -> bool:
        """Whether no request left, and nothing was written where the archive wants it."""
        return len(self.server.headers) == self.asked and not self.outside.exists()


@pytest.fixture
def victim(
    user: User, hostile: Hostile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Victim:
    variables = {**user.variables, **SECRETS, "HF_ENDPOINT": "http://127.0.0.1:9"}
    found = Victim(
        User(user.home, user.folder, variables), hostile.server, hostile.outside, len(hostile.server.headers)
    )
    monkeypatch.chdir(user.folder)
    assert main(["checkpoint", "import", str(hostile.archive), "--name", NAME]) == 0
    last = capsys.readouterr().out.rstrip()
    assert last.endswith(f"to go on with it: vellumforge2 checkpoint resume {NAME}")
    return found


@pytest.fixture
def here(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> Victim:
    """The same, with this process in the folder and the secrets in its environment."""
    for name, value in (SECRETS | {"HF_ENDPOINT": "http://127.0.0.1:9"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("API_KEY", raising=False)
    return victim


FOLLOWING = [
    (["checkpoint", "resume", NAME], f"vellumforge2 checkpoint resume {NAME} --trust-session"),
    (["retry", NAME], f"vellumforge2 retry {NAME} --trust-session"),
    (
        ["retry", NAME, "--only", "cause=timeout"],
        f"vellumforge2 retry {NAME} --only cause=timeout --trust-session",
    ),
    (["run", "--resume", NAME, "--output", "output"], f"checkpoint resume {NAME} --output output --trust-"),
    (["run", "--resume", NAME, "--upload-to-hf"], f"run --trust-session --resume {NAME} --upload-to-hf"),
    (["run", "--resume", NAME, "--dry-run"], f"checkpoint resume {NAME} --trust-session"),
    (["upload", NAME, "--public", "--partial"], f"upload {NAME} --public --partial --trust-session"),
]
"""Commands that would follow its settings, and how the command begins or ends that is printed."""


@pytest.mark.parametrize(("words", "command"), FOLLOWING)
def test_what_would_follow_its_settings_lists_them_and_does_nothing(
    here: Victim, hostile: Hostile, words: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    lines = [line.removeprefix("vellumforge2: ") for line in capsys.readouterr().err.splitlines()]
    assert lines[0].startswith(f"session {NAME} came from elsewhere, and its settings are not yours")
    shown = [line.strip() for line in lines[1:-2]]
    wanted = hostile.orders if words[0] != "upload" else hostile.orders[-1:]
    assert [one for one, begin in zip(shown, wanted, strict=True) if not one.startswith(begin)] == []
    assert command in lines[-1]
    assert here.is_unharmed()


@pytest.mark.parametrize("own", [False, True])
def test_what_reads_its_answers_works_with_the_ledger_here(
    here: Victim, hostile: Hostile, capsys: pytest.CaptureFixture[str], *, own: bool
) -> None:
    if own:
        here.user.write("config.toml", hostile.text)
    reading = (
        ["export", NAME, "--format", "trl", "--partial"],
        ["report", NAME],
        ["failures", NAME, "--show"],
        ["lint", NAME],
        ["checkpoint", "inspect", NAME],
        ["checkpoint", "list"],
        ["checkpoint", "import", str(hostile.archive), "--name", f"{NAME}2"],
        ["checkpoint", "merge", NAME, f"{NAME}2", "--into", "session_merged"],
        ["checkpoint", "export", "session_merged"],
        ["checkpoint", "import", "session_merged.vellumforge.zip", "--name", "session_again"],
        ["ledger", "prune", "--dry-run"],
    )
    for words in reading:
        assert main(words) == 0, (words, capsys.readouterr().err)
    capsys.readouterr()
    assert here.is_unharmed()
    assert sorted(path.name for path in here.user.folder.iterdir()) == sorted(
        ["output", "session_merged.vellumforge.zip", *(["config.toml"] if own else [])]
    )
    if not own:
        # Neither a merge nor a further journey loses the mark.
        for name in ("session_merged", "session_again"):
            assert main(["checkpoint", "resume", name]) == 2
            assert f"session {name} came from elsewhere" in capsys.readouterr().err
        assert here.is_unharmed()


def test_a_session_of_ones_own_that_is_merged_with_it_is_marked_too(
    here: Victim, hostile: Hostile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoint", "import", str(hostile.archive), "--name", "session_own"]) == 0
    own = here.session.with_name("session_own")
    record = json.loads((own / "session.json").read_text())
    del record["from_elsewhere"]
    (own / "session.json").write_text(json.dumps(record))
    (own / ".from-elsewhere").unlink()
    assert main(["checkpoint", "merge", "session_own", NAME, "--into", "session_merged"]) == 0
    merged = read_record(here.session.with_name("session_merged"))
    assert merged is not None
    assert merged.from_elsewhere
    assert main(["checkpoint", "resume", "session_merged"]) == 2
    assert "session session_merged came from elsewhere" in capsys.readouterr().err


def test_with_a_configuration_of_ones_own_its_orders_count_for_nothing(
    here: Victim, hostile: Hostile
) -> None:
    here.user.write("config.toml", hostile.text.replace(hostile.server.url, "http://127.0.0.1:9/v1"))
    for words in (["checkpoint", "resume", NAME], ["retry", NAME], ["run", "--resume", NAME]):
        assert main(words) == 2  # its answers are those of another endpoint
    assert here.is_unharmed()


WORKER = """
import asyncio, json, sys
from flows.generate import generate
state = asyncio.run(generate(**json.loads(sys.argv[1]), return_state=True))
print(json.dumps([state.type.value, state.message]))
"""


def as_worker(victim: Victim, **parameters: Any) -> tuple[str, str]:
    """How a flow run with these parameters ends."""
    ended = victim.user.run(json.dumps(parameters), program=(sys.executable, "-c", WORKER))
    assert ended.code == 0, ended.err
    state, message = json.loads(ended.out.splitlines()[-1])
    return state, message


def test_as_a_deployments_parameter_it_decides_nothing_either(victim: Victim, hostile: Hostile) -> None:
    state, message = as_worker(victim, resume=NAME)
    assert state == "FAILED"
    assert message.splitlines()[0].startswith(f"session {NAME} came from elsewhere")
    for order in hostile.orders:
        assert f"  {order}" in message
    state, message = as_worker(victim, resume=NAME, config=f"output/{NAME}/config.toml.bak")
    assert (state, "came from elsewhere, and no configuration of yours" in message) == ("FAILED", True)
    assert victim.is_unharmed()


def test_a_configuration_that_says_the_same_goes_on_for_nothing(victim: Victim, hostile: Hostile) -> None:
    victim.user.write("config.toml", hostile.text)
    ended = victim.run("checkpoint", "resume", NAME, "--json")
    assert ended.code == 0, ended.err
    assert ended.summary["rows"] == 6
    assert len(rows_of(victim.session)) == 6
    assert not victim.outside.exists()
    new = hostile.server.headers[victim.asked :]
    assert 0 < len(new) == ended.summary["paid"] < 1 + 3 + 12
    assert not told(new)
    # And what it says then is the user's own; the mark stays all the same.
    record = read_record(victim.session)
    assert record is not None
    assert record.from_elsewhere
    assert "api_key_env" not in record.settings["models"]["main"]


def told(requests: list[dict[str, str]]) -> list[str]:
    """Which secrets a server was told."""
    sent = json.dumps(requests)
    return [name for name, value in SECRETS.items() if value in sent]


def test_the_printed_command_goes_on_and_still_sends_no_strangers_secret(
    victim: Victim, hostile: Hostile
) -> None:
    refused = victim.run("checkpoint", "resume", NAME)
    assert refused.code == 2
    program, *words = shlex.split(refused.err.splitlines()[-1].removeprefix("vellumforge2: "))
    assert program == "vellumforge2"
    try:
        ended = victim.run(*words, "--json")
        assert ended.code == 0, ended.err
        assert len(rows_of(victim.session)) == 6
        new = hostile.server.headers[victim.asked :]
        assert new
        assert not told(new)
        assert {headers.get("x-plain") for headers in new} == {"hello", None}
        said = " ".join(ended.err.split())
        assert f"of the settings of session {NAME}: models.main.api_key_env" in said
        # What was trusted is followed, and nothing else.
        assert [path.name for path in victim.outside.iterdir()] == ["mirror"]
    finally:
        shutil.rmtree(victim.outside, ignore_errors=True)


def named_here(hostile: Hostile) -> dict[str, Any]:
    """All that its settings order, as settings of the user's own."""
    return {
        "models.main.base_url": hostile.server.url,
        "models.main.api_key_env": "AWS_SECRET_ACCESS_KEY",
        "models.main.headers": HEADERS,
        "models.rejected.base_url": hostile.server.url,
        "models.judge.base_url": hostile.server.url,
        "execution.shards": 2,
        "execution.work_pool": "theirs",
        "output.mirror": f"file://{hostile.outside}/mirror",
        "huggingface.repo_id": "mallory/loot",
    }


@pytest.mark.parametrize("way", ["command line", "environment"])
async def test_settings_given_one_by_one_that_say_the_same_are_enough(
    here: Victim, hostile: Hostile, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = named_here(hostile)
    overrides = named if way == "command line" else {}
    for key, value in named.items():
        if way == "environment":
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"VELLUMFORGE__{key.upper().replace('.', '__')}", text)
    checked = await check_run(RunRequest(resume=NAME, overrides=overrides))
    main_model = checked.config.models.main
    assert (main_model.api_key_env, main_model.headers) == ("AWS_SECRET_ACCESS_KEY", HEADERS)
    assert (checked.config.output.folder, checked.config.output.ledger) == ("output", "")
    # Its ledger is not named, and shards need it.
    assert checked.config.execution.shards == 0
    assert here.is_unharmed()


async def test_one_of_its_orders_that_nobody_says_is_enough_for_a_refusal(
    here: Victim, hostile: Hostile
) -> None:
    for key in ("models.main.headers", "models.main.api_key_env", "output.mirror", "models.judge.base_url"):
        overrides = named_here(hostile)
        del overrides[key]
        with pytest.raises(UsageError) as refused:
            await check_run(RunRequest(resume=NAME, overrides=overrides))
        shown = str(refused.value).splitlines()[1:-2]
        assert {line.strip().split(" = ")[0].partition(".X-")[0] for line in shown} >= {key}
        assert "--set" in str(refused.value).splitlines()[-1]
    other = {**named_here(hostile), "models.main.base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(UsageError, match="cannot be overridden"):
        await check_run(RunRequest(resume=NAME, overrides=other))
    assert here.is_unharmed()


def without_record(victim: Victim) -> None:
    (victim.session / "session.json").unlink()


def without_mark(victim: Victim) -> None:
    without_record(victim)
    (victim.session / ".from-elsewhere").unlink()


def with_another_id(victim: Victim) -> None:
    """As in an archive whose checkpoint is that of another session: the ledger does not know it."""
    without_record(victim)
    path = victim.session / "checkpoint.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"session_id": "another"}))


def as_of_an_older_version(victim: Victim) -> None:
    """As a version writes the record that knows no mark."""
    path = victim.session / "session.json"
    document = json.loads(path.read_text())
    assert document.pop("from_elsewhere") is True
    path.write_text(json.dumps(document))


def without_record_and_ledger(victim: Victim) -> None:
    without_record(victim)
    for path in (victim.user.folder / "output").glob("ledger.db*"):
        path.unlink()


@pytest.mark.parametrize(
    "lose",
    [
        without_record,
        without_mark,
        without_record_and_ledger,
        with_another_id,
        as_of_an_older_version,
    ],
)
def test_a_session_that_loses_its_record_does_not_lose_its_mark(
    here: Victim, lose: Callable[[Victim], None]
) -> None:
    lose(here)
    with pytest.raises(UsageError, match="came from elsewhere"):
        asyncio.run(check_run(RunRequest(resume=NAME)))
    made = {path.name for path in (here.user.folder / "output").glob("ledger.db")}
    assert made == (set() if lose is without_record_and_ledger else {"ledger.db"})
    for file in ("config.toml.bak", "config.toml"):
        (here.session / file).write_text((here.session / "config.toml.bak").read_text())
        with pytest.raises(UsageError, match="no configuration of yours"):
            asyncio.run(check_run(RunRequest(resume=NAME, config=f"output/{NAME}/{file}")))
        assert main(["checkpoint", "list", "--config", f"output/{NAME}/{file}"]) == 2
    assert here.is_unharmed()


def test_a_folder_that_looks_like_vellumforge2s_names_no_variable_and_no_place(
    here: Victim, hostile: Hostile, capsys: pytest.CaptureFixture[str]
) -> None:
    """It knows addresses, and neither variables nor headers, ledgers or mirrors."""
    folder = here.user.folder / "output" / "session_copied_by_hand"
    shutil.copytree(here.session, folder)
    for name in ("session.json", ".from-elsewhere"):
        (folder / name).unlink()
    checkpoint = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(checkpoint | {"session_id": "of-nobody"}))
    orders = ["models.main.api_key_env", "models.main.headers.X-A", "output.ledger", "output.mirror"]
    backup = hostile.text.replace("[models.main]", "[models.main]\napi_key_env = 'OUR_KEY'", 1)
    backup = backup.replace("[models.rejected]", "headers = {X-A = '${HF_TOKEN}'}\n[models.rejected]", 1)
    outside = here.outside
    backup += f"\n[output]\nledger = 'sqlite:///{outside}/l.db'\nmirror = 'file://{outside}/m'\n"
    (folder / "config.toml.bak").write_text(backup)
    assert main(["checkpoint", "resume", folder.name]) == 2
    first, *lines = capsys.readouterr().err.splitlines()[:-2]
    assert "has no record, and nobody knows whose its settings are" in first
    assert [line.split()[1] for line in lines] == orders
    assert here.is_unharmed()


def test_an_order_is_shown_so_that_it_cannot_deceive(
    here: Victim, hostile: Hostile, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = {"output.mirror": "file:///tmp/\u202egpj.\u0430", "huggingface.repo_id": "x" * 5000}
    archive = rewritten(hostile.archive, here.user.folder / "strange.zip", strange)
    assert main(["checkpoint", "import", str(archive), "--name", "session_strange"]) == 0
    assert main(["checkpoint", "resume", "session_strange"]) == 2
    shown = capsys.readouterr().err
    assert r'output.mirror = "file:///tmp/\u202egpj.\u0430"' in shown
    assert "... (5,002 characters)" in shown
    assert shown.isascii()


def test_a_transforms_session_is_no_archive(here: Victim, hostile: Hostile) -> None:
    archive = rewritten(hostile.archive, here.user.folder / "t.zip", {}, transform="vellumforge2 upload x")
    assert main(["checkpoint", "import", str(archive), "--name", "session_transform"]) == 2
    assert not (here.user.folder / "output" / "session_transform").exists()


ALLOWED = "VELLUMFORGE__SECRETS__ALLOWED"


@pytest.mark.parametrize(
    ("names", "allowed", "refused"),
    [
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, None, "AWS_SECRET_ACCESS_KEY"),
        ({"headers": {"X-A": "${HF_TOKEN}"}}, None, "HF_TOKEN"),
        ({"headers": {"X-A": "of ${DATABASE_URL}"}}, None, "DATABASE_URL"),
        ({"api_key_env": "OPENAI_API_KEY"}, None, ""),
        ({"api_key_env": "OPENAI_API_KEY"}, "MY_*, OTHER_KEY", "OPENAI_API_KEY"),
        ({"api_key_env": "OPENAI_API_KEY"}, "", "OPENAI_API_KEY"),
        ({"headers": {"X-A": "of ${DATABASE_URL}"}}, "*_API_KEY,DATABASE_?RL", ""),
    ],
)
async def test_whoever_runs_the_worker_says_which_variables_a_parameter_may_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: dict[str, Any],
    allowed: str | None,
    refused: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    if allowed is not None:
        monkeypatch.setenv(ALLOWED, allowed)
    text = config("http://127.0.0.1:9/v1", mode="sft")
    table: dict[str, Any] = load_config(None, text=text, environ={}).config.model_dump(exclude_unset=True)
    table["models"]["main"] |= names
    request = RunRequest()
    if not refused:
        await check_run(request, table, by_parameters=True)
    else:
        with pytest.raises(UsageError, match=f"names {refused}, which may not be read") as told_so:
            await check_run(request, table, by_parameters=True)
        assert ALLOWED in str(told_so.value)
    # What the folder's own file names for the same endpoint is the worker's own.
    loaded = load_config(None, table=table).config
    written = "\n".join(
        f"{name} = {json.dumps(value)}" if isinstance(value, str) else f"{name} = {{X-A = '{value['X-A']}'}}"
        for name, value in names.items()
    )
    (tmp_path / "config.toml").write_text(text.replace("[models.main]", f"[models.main]\n{written}"))
    await take_keys(loaded, "", None, by_parameters=True)
    await check_run(RunRequest(), by_parameters=True)
    # For another endpoint it is not.
    elsewhere = loaded.models.main.model_copy(update={"base_url": "http://127.0.0.1:10/v1"})
    moved = loaded.model_copy(update={"models": loaded.models.model_copy(update={"main": elsewhere})})
    if refused:
        with pytest.raises(UsageError, match="may not be read"):
            await take_keys(moved, "", None, by_parameters=True)


async def test_no_file_and_no_parameter_says_which_variables_may_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", SECRETS["DATABASE_URL"])
    text = config("http://127.0.0.1:9/v1", mode="sft", models='headers = {X-A = "${DATABASE_URL}"}')
    (tmp_path / "weekly.toml").write_text(text)
    (tmp_path / "keys.env").write_text(f"{ALLOWED}=*\n")
    for request in (
        RunRequest(config="weekly.toml", env_file="keys.env"),
        RunRequest(config="weekly.toml", overrides={"secrets.allowed": "*"}),
    ):
        with pytest.raises(UsageError, match=r"may not be read|secrets\.allowed: unknown key"):
            await check_run(request, by_parameters=True)
    (tmp_path / "config.toml").write_text(f'[secrets]\nallowed = "*"\n{text}')
    with pytest.raises(UsageError, match="secrets: unknown key"):
        await check_run(RunRequest())


def test_a_worker_sends_no_secret_that_a_parameter_names(victim: Victim, hostile: Hostile) -> None:
    table = load_config(None, text=hostile.text, environ={}).config.model_dump(
        mode="json", exclude_unset=True
    )
    table["models"]["main"]["headers"] = {"X-Hub": "${HF_TOKEN}"}
    state, message = as_worker(victim, settings=table)
    assert (state, "names HF_TOKEN, which may not be read" in message) == ("FAILED", True)
    assert victim.is_unharmed()
