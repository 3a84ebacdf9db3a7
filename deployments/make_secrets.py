"""The passwords of `compose.yaml`: `python3 -m deployments.make_secrets` writes `deployments/.env` once.

Nothing but the standard library is imported, so that no environment has to be made for it.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

NAMES = (
    "API_PASSWORD",
    "DATABASE_PASSWORD",
    "PREFECT_DATABASE_PASSWORD",
    "LEDGER_DATABASE_PASSWORD",
    "REDIS_PASSWORD",
)
"""The variables that `compose.yaml` asks for."""

BYTES = 24
"""Random bytes in a password: 192 bits, which nobody guesses."""

HEAD = "# Passwords of compose.yaml, made by `python3 -m deployments.make_secrets`. Never commit this file.\n"


def write(path: Path) -> None:
    """Write new passwords, readable by their owner alone; hexadecimal, so that a URL can hold them.

    Raises:
        FileExistsError: The file is there: its passwords are those of databases that exist.
        OSError: It cannot be written.
    """
    # Made with its mode, never opened up for a moment; O_EXCL follows no link that waits there.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(HEAD)
        file.writelines(f"{name}={secrets.token_hex(BYTES)}\n" for name in NAMES)


def main(arguments: list[str]) -> int:
    """Write the file named on the command line, else `.env` beside this module.

    Returns:
        The exit code: 0 when it was written, 2 when it was not.
    """
    path = Path(arguments[0]) if arguments else Path(__file__).with_name(".env")
    try:
        write(path)
    except FileExistsError:
        sys.stderr.write(
            f"{path} is there already and was left as it is: the databases know its passwords; "
            "to begin anew, remove it together with the volumes (docker compose down --volumes)\n"
        )
        return 2
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error.strerror}\n")
        return 2
    sys.stdout.write(f"{path} holds new passwords; API_PASSWORD is the one for the pages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
