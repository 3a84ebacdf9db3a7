"""llama.cpp with a model of random weights: `python -m tests.servers.llama PORT SLOTS`, until it is killed.

Runs in the servers' own environment. The model knows some words, every ASCII character, and the bytes of all
others. It is made here, less than half a megabyte large, so that nothing is downloaded. What it writes is
nonsense of these words, without an end: prose goes up to the token limit, and JSON is as long as its grammar
lets it be.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import xllamacpp

WIDTH: Final = 64
HEADS: Final = 4
CONTEXT: Final = 4096
"""Tokens of one question and its answer."""
ALIAS: Final = "nonsense"

_WORDS: Final = (
    "the a keeper lamp sea fog island storm light stair tower letter ship harbour night winter window "
    "gull rope oil brass tide rock bell clock door coat lantern stone wind who when after before under "
    "beyond and or but with into found lost kept heard wrote burned turned waited forgot climbed old last "
    "quiet bitter narrow silver green slow heavy distant empty"
)
_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"
# How likely tokens are beside each other, before the weights have their say. The marks that end a string, a
# list and an object are likely, or the grammar of JSON would keep on to the token limit.
_NEVER: Final = -1.0
_LIKELY: Final = {'"': 0.75, ".": 0.6, ",": 0.5, "]": 0.6, "}": 0.6} | dict.fromkeys("12345", 0.3)
_WORD: Final = 0.5


def vocabulary() -> list[tuple[str, gguf.TokenType, float]]:
    """Each token with its type and how likely it is to be written."""
    found = [
        ("<unk>", gguf.TokenType.UNKNOWN, _NEVER),
        ("<s>", gguf.TokenType.CONTROL, _NEVER),
        ("</s>", gguf.TokenType.CONTROL, _NEVER),
    ]
    found += [(f"<0x{byte:02X}>", gguf.TokenType.BYTE, _NEVER) for byte in range(256)]
    found += [(_SPACE + word, gguf.TokenType.NORMAL, _WORD) for word in _WORDS.split()]
    marks = [_SPACE, *map(chr, range(33, 127))]
    found += [(mark, gguf.TokenType.NORMAL, _LIKELY.get(mark, _NEVER)) for mark in marks]
    return found


def write_model(path: Path) -> None:
    """Write a llama of one layer with random weights."""
    tokens = vocabulary()
    random = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([0.0 if kind == gguf.TokenType.NORMAL else -1000.0 for _, kind, _ in tokens])
    writer.add_token_types([kind for _, kind, _ in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(value=True)
    writer.add_chat_template(
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
    )
    embedding, output = weights(len(tokens), WIDTH), weights(len(tokens), WIDTH)
    # The first place is the same in every state, so that the output's first place is a token's likelihood.
    embedding[:, 0] = 8.0
    output[:, 0] = [likely for _, _, likely in tokens]
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", weights(WIDTH, WIDTH))
    writer.add_tensor("blk.0.ffn_gate.weight", weights(2 * WIDTH, WIDTH))
    writer.add_tensor("blk.0.ffn_up.weight", weights(2 * WIDTH, WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", weights(WIDTH, 2 * WIDTH))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(port: int, slots: int) -> None:
    """Serve the model on a port of the loopback interface; the first line printed is the base URL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nonsense.gguf"
        write_model(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {ALIAS}
        params.hostnames = ["127.0.0.1"]
        params.port = port
        params.n_parallel = slots
        params.n_ctx = CONTEXT * slots
        params.n_threads_http = slots + 8
        params.cpuparams.n_threads = 1
        params.cpuparams_batch.n_threads = 1
        params.n_gpu_layers = 0
        params.warmup = False
        server = xllamacpp.Server(params)
        print(f"{server.listening_address}/v1", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
