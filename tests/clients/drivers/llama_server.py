"""A real llama.cpp server on a model of half a megabyte whose weights are random: what it says means nothing, but it
counts, streams and ends as llama.cpp does. Prints its address, and stops when standard input ends.
"""

import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

CONTEXT_TOKENS = 4096
WIDTH, HEADS, LAYERS, FEED_FORWARD = 64, 4, 2, 128
WORDS = (
    "river",
    "quiet",
    "lamp",
    "garden",
    "copper",
    "window",
    "salt",
    "meadow",
    "button",
    "violet",
    "ladder",
    "north",
)
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_model(path: Path) -> None:
    """Write a Llama of two layers. Weights come from a fixed seed, so that it says the same in every run."""
    vocabulary = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    words = [f"\u2581{word}".encode() for word in WORDS]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*vocabulary, *words])
    writer.add_token_scores([0.0] * (len(vocabulary) + len(words)))
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(seed=1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))

    add("token_embd.weight", len(vocabulary) + len(words), WIDTH)
    # Only words can win: bytes would be no text, and the end would come by chance.
    output = np.zeros((len(vocabulary) + len(words), WIDTH), np.float32)
    output[len(vocabulary) :] = random.normal(0, 1, (len(words), WIDTH))
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.gguf")
        write_model(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = CONTEXT_TOKENS
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = 1
        params.warmup = False
        params.sampling.temp = 0.0
        params.hostnames = ["127.0.0.1"]
        params.port = int(sys.argv[1])
        server = xllamacpp.Server(params)
        print(server.listening_address, path.stat().st_size, flush=True)  # noqa: T201  What the test waits for.
        sys.stdin.read()


if __name__ == "__main__":
    main()
