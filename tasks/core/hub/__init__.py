"""The Hugging Face Hub: a dataset's card, and its way there.

`huggingface_hub` reads its settings once, when it is imported, and only here before that. What the user's
own environment says stays.
"""

from __future__ import annotations

import os
from typing import Final

SETTINGS: Final = {
    # Nothing is told that the upload does not need.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # No token but the one that it is given: none from the files of another program.
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # By SHA-256 the Hub knows a whole file again, also one that no commit holds yet.
    "HF_HUB_DISABLE_XET": "1",
    # The terminal belongs to the program's own reports.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_VERBOSITY": "error",
}

for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
