"""Files that were cut, emptied, or put there by somebody else: a resume reads around them."""

from __future__ import annotations

import base64
import json
import os
import pickle
from typing import TYPE_CHECKING

from tests.crash.torn import rehearse
from tests.flows.command import config, model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.command import User

CUTS = 6


def test_a_session_with_a_file_cut_anywhere_is_resumed(tmp_path: Path, prefect_url: str) -> None:
    """A few cuts through the command line; tests/core/session/test_torn_files.py makes all of them."""
    report = rehearse(tmp_path, most=CUTS, PREFECT_API_URL=prefect_url)
    assert not report.wrong, report.wrong
    assert CUTS // 2 < report.cuts.total() <= CUTS
    assert len(report.cuts) > 1


class _Hostile:
    """An object whose unpickling makes a file."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._proof),)


def test_results_of_tasks_are_data_and_never_unpickled(user: User, tmp_path: Path) -> None:
    """Prefect reads a result as the file itself says, and one that says nothing as a pickle."""
    with model() as server:
        user.write("config.toml", config(server.url, subtopics=3, prompts=3))
        assert user.run("--json").code == 0
        (first,) = user.sessions()
        paid = len(server.requests())
        proof = tmp_path / "unpickled"
        pickled = base64.b64encode(pickle.dumps(_Hostile(proof))).decode()
        results = sorted((tmp_path / "prefect" / "storage").iterdir())
        whole = [path.read_bytes() for path in results]
        document = json.loads(whole[2])
        document["metadata"]["serializer"] = {"type": "pickle"}
        document["result"] = pickled
        hostile = [
            b"",
            whole[1][:64],
            json.dumps(document).encode(),
            json.dumps({"result": pickled}).encode(),
            json.dumps({"serializer": {"type": "json", "jsonlib": "antigravity"}, "data": "{}"}).encode(),
            b"\0\xff" * 100,
            b"[]",
            b'{"metadata": null, "result": null}',
        ]
        for path, content in zip(results, hostile, strict=False):
            path.write_bytes(content)
        results[len(hostile)].unlink()
        results[len(hostile)].mkdir()

        again = user.run("--json")
        assert (again.code, again.err, again.summary["paid"]) == (0, "", 0)
        assert not proof.exists()
        assert len(server.requests()) == paid
        second = user.sessions()[-1]
        assert (second / "dataset.jsonl").read_bytes() == (first / "dataset.jsonl").read_bytes()
        # What could be put right was, and is found again.
        assert [json.loads(path.read_bytes())["metadata"] for path in results[: len(hostile)]] == [
            json.loads(content)["metadata"] for content in whole[: len(hostile)]
        ]
