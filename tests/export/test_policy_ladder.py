"""Policies to GGUF with the official converter and llama.cpp's quantiser, on a small Llama with SmolLM2's tokenizer."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from edge_tts import cli
from edge_tts.errors import EdgeError, InputError, PackError
from edge_tts.export import checkpoint, importance, ladder, policy_measurements
from edge_tts.export.ladder import build
from edge_tts.files.gguf import open_gguf
from edge_tts.profiles.loader import load
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama_native import NativeModel

TEXT = "Tom has 12 boxes with 8 pencils each. He gives away 20 of them and counts what is left. " * 16
PARTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, smollm: tuple[Any, Any]) -> Path:
    """A two-block Llama with random weights and SmolLM2's tokenizer, as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tokenizer = smollm[1]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture(scope="module")
def rungs(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(str(made), ["q8_0", "Q4_0", "Q8_0"], tmp_path_factory.mktemp("ladder"))


def started(rungs: dict[str, Path], out: Path) -> Path:
    """A ladder in ``out`` whose F16 rung is there already: the official converter takes a quarter of a minute."""
    out.mkdir()
    for file in (rungs["F16"], rungs["F16"].with_name(ladder.LADDER)):
        shutil.copyfile(file, out / file.name)
    return out


def add_lora(folder: Path, out: Path) -> Any:
    """Write a random adapter of ``folder`` to ``out``; the adapted model."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(out)
    return model


def gguf_logits(path: Path, tokens: list[int]) -> np.ndarray:
    model = NativeModel(path, EngineConfig(width=1, context=64))
    logits = model.decode([(t, i, 0, i == len(tokens) - 1) for i, t in enumerate(tokens)]).copy()
    model.close()
    return logits[0]


def torch_logits(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([tokens])).logits[0, -1].numpy()
    return logits


def test_a_ladder_has_the_model_it_was_made_from(made: Path, rungs: dict[str, Path]) -> None:
    assert list(rungs) == ["F16", "Q8_0", "Q4_0"]
    sizes = [path.stat().st_size for path in rungs.values()]
    assert sizes[0] > sizes[1] > sizes[2]
    tokens = list(range(100, 120))
    wanted = torch_logits(AutoModelForCausalLM.from_pretrained(made), tokens)
    assert np.abs(gguf_logits(rungs["F16"], tokens) - wanted).max() < 0.02 * np.abs(wanted).max()


def test_finished_rungs_are_kept_and_new_ones_added(
    made: Path, rungs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(rungs["F16"].parent, tmp_path / "again"))
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.gguf")}
    monkeypatch.setattr(ladder, "convert", lambda *_: pytest.fail("converted again"))
    again = build(str(made), ["Q8_0", "Q5_0"], out)
    assert list(again) == ["F16", "Q8_0", "Q5_0"]
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    (out / "policy-Q8_0.gguf").write_bytes(b"cut")
    assert build(str(made), ["Q8_0"], out)["Q8_0"].stat().st_size > 1000


def test_a_gguf_is_a_source(rungs: dict[str, Path], tmp_path: Path) -> None:
    made = build(str(rungs["Q8_0"]), ["Q4_0"], tmp_path / "out")
    assert made["F16"].stat().st_size == pytest.approx(rungs["F16"].stat().st_size, rel=0.01)
    assert made["Q4_0"].stat().st_size == pytest.approx(rungs["Q4_0"].stat().st_size, rel=0.01)


def test_an_adapter_is_merged_before_quantising(made: Path, tmp_path: Path) -> None:
    adapted = add_lora(made, tmp_path / "lora")
    tokens = list(range(200, 220))
    wanted, plain = torch_logits(adapted, tokens), torch_logits(adapted.get_base_model(), tokens)
    path = build(str(made), ["F16"], tmp_path / "out", tmp_path / "lora")["F16"]
    assert np.abs(gguf_logits(path, tokens) - wanted).max() < 0.02 * np.abs(wanted).max()
    assert {p.name for p in path.parent.iterdir()} == {"policy-F16.gguf", ladder.LADDER}
    del plain


def test_importance_is_the_mean_square_of_each_input_column(made: Path, rungs: dict[str, Path]) -> None:
    found = importance.measure(made, rungs["F16"], TEXT)
    blocks = [f"blk.{i}.{part}.weight" for i in range(2) for part in PARTS]
    assert sorted(found) == sorted([*blocks, "output.weight"])
    model = AutoModelForCausalLM.from_pretrained(made)
    ids = AutoTokenizer.from_pretrained(made)(TEXT, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        # The hidden states before a block, normed, are what its attention reads.
        hidden = model(ids[:, : importance.WINDOW], output_hidden_states=True).hidden_states[1]
        read = model.model.layers[1].input_layernorm(hidden)[0]
    assert found["blk.1.attn_q.weight"] == pytest.approx(read.square().mean(dim=0).numpy(), rel=1e-4)


def test_an_importance_matrix_makes_other_rungs_and_is_remembered(
    made: Path, rungs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = started(rungs, tmp_path / "out")
    with_it = build(str(made), ["Q4_0"], out, imatrix=TEXT)
    assert with_it["Q4_0"].stat().st_size == pytest.approx(rungs["Q4_0"].stat().st_size, rel=0.01)
    first, second = (tensor_bytes(ladder_["Q4_0"], "blk.0.ffn_up.weight") for ladder_ in (with_it, rungs))
    assert first != second
    monkeypatch.setattr(importance, "measure", lambda *_: pytest.fail("measured again"))
    build(str(made), ["Q4_0"], out, imatrix=TEXT)
    assert {path.name for path in out.iterdir()} == {"policy-F16.gguf", "policy-Q4_0.gguf", ladder.LADDER}


def test_an_importance_matrix_needs_a_checkpoint_and_enough_text(
    made: Path, rungs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"not with policy-Q8_0\.gguf"):
        build(str(rungs["Q8_0"]), ["Q4_0"], tmp_path / "a", imatrix=TEXT)
    with pytest.raises(InputError, match="at least 128 are needed"):
        build(str(made), ["Q4_0"], started(rungs, tmp_path / "b"), imatrix="Too short.")


def tensor_bytes(path: Path, name: str) -> bytes:
    return next(bytes(tensor.data) for tensor in open_gguf(path).tensors if tensor.name == name)


def test_an_interrupt_leaves_finished_rungs_only(made: Path, rungs: dict[str, Path], tmp_path: Path) -> None:
    out = started(rungs, tmp_path / "out")

    def interrupt(_: float, label: str) -> None:
        if label.startswith("quantising"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(str(made), ["Q8_0"], out, progress=interrupt)
    assert {path.name for path in out.iterdir()} == {"policy-F16.gguf", ladder.LADDER}


def test_the_account_measures_every_rung(
    rungs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"question": "What is 2 plus 3?", "answer": "5"}\n' * 1)
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    arguments = [str(rungs["F16"]), "--quant", "Q4_0", "--out", str(tmp_path / "out"), "--text", str(text)]
    arguments += ["--problems", str(problems), "--profile", "laptop-cpu"]
    kept: list[policy_measurements.LadderMeasurements] = []
    measure = policy_measurements.measure_ladder

    def measured_once(*parts: Any, **named: Any) -> policy_measurements.LadderMeasurements:
        if not kept:
            kept.append(measure(*parts, **named))
        return kept[0]

    monkeypatch.setattr(policy_measurements, "measure_ladder", measured_once)
    result = CliRunner().invoke(cli.group, ["export", "policy", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told == json.loads((tmp_path / "out" / "account.json").read_text())
    whole, small = told["rungs"]
    assert (whole["name"], small["name"]) == ("F16", "Q4_0")
    assert whole["fidelity"]["mean_kl"] == pytest.approx(0, abs=1e-6)
    assert whole["fidelity"]["top1_agreement"] == 1
    assert 0 < small["fidelity"]["mean_kl"] < 5
    assert small["fidelity"]["tokens"] > 200
    assert small["accuracy"]["problems"] == 1
    assert all(speed > 0 for speed in small["tokens_per_s"].values())
    assert told["recommended"] in ("F16", "Q4_0")
    table = CliRunner().invoke(cli.group, ["export", "policy", *arguments], catch_exceptions=False)
    assert "recommended: " in table.output


def rung(name: str, kl: float, right: int, speed: float) -> policy_measurements.Rung:
    accuracy = policy_measurements.Accuracy(right, 50, (right / 50 - 0.1, right / 50 + 0.1))
    fidelity = policy_measurements.Fidelity(100, 10.0, kl, 0.9)
    return policy_measurements.Rung(name, 1000, fidelity, accuracy, {1: 1.0, 8: speed, 32: speed})


def test_the_fastest_sound_rung_is_recommended(rungs: dict[str, Path]) -> None:
    files = dict.fromkeys(("F16", "good", "fast", "wrong"), rungs["F16"])
    measured = [rung("F16", 0, 30, 1), rung("good", 0.01, 28, 2), rung("fast", 0.5, 29, 9), rung("wrong", 0.01, 10, 9)]
    assert policy_measurements.recommend(measured, files, load("laptop-cpu"))[0] == "good"
    worse = [rung("F16", 0, 30, 1), rung("fast", 0.5, 29, 9), rung("wrong", 0.6, 10, 9)]
    chosen, reason = policy_measurements.recommend(worse[1:], files, load("laptop-cpu"))
    assert (chosen, "this one is nearest" in reason) == ("fast", True)


def test_too_short_a_text_is_refused(rungs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="at least 128 are needed"):
        policy_measurements.compare(rungs["F16"], rungs["F16"], "too short")


def spoil(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    if what == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif what == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif what == "nan":
        tensors = load_file(weights)
        tensors["model.norm.weight"][3] = float("nan")
        save_file(tensors, weights, metadata={"format": "pt"})
    elif what == "tokenizer":
        (folder / "tokenizer.json").unlink()
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
    elif what == "index":
        (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    else:
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = ["NobodysForCausalLM"] if what == "architecture" else []
        (folder / "config.json").write_text("{" if what == "config" else json.dumps(config))


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("cut", PackError, "is cut short"),
        ("pickle", InputError, "a pickle that can run code"),
        ("nan", PackError, "model.norm.weight: holds NaN"),
        ("tokenizer", InputError, "has no tokenizer"),
        ("architecture", InputError, "does not know the architecture NobodysForCausalLM"),
        ("no architecture", InputError, r"config\.json: architectures must be a list of length >= 1, found \[\]"),
        ("config", InputError, "cannot be read"),
        ("index", InputError, r"index\.json: weight_map must be an object of named values, found 3"),
    ],
)
def test_bad_checkpoints_are_refused_in_one_sentence(
    copy: Path, tmp_path: Path, what: str, kind: type[EdgeError], message: str
) -> None:
    spoil(copy, what)
    with pytest.raises(kind, match=message):
        build(str(copy), ["Q8_0"], tmp_path / "out")
    assert list((tmp_path / "out").glob("*")) == []


def test_bad_arguments_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'Q9_9' is no quantisation"):
        build(str(made), ["Q9_9"], tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        build(str(tmp_path / "nowhere"), ["Q8_0"], tmp_path)


def test_an_adapter_of_another_model_is_refused(copy: Path, made: Path, tmp_path: Path) -> None:
    add_lora(made, tmp_path / "lora")
    weights = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = next(n for n in tensors if n.endswith("lora_A.weight"))
    save_file(tensors | {name: torch.zeros(4, 65)}, weights)
    with pytest.raises(InputError, match="give the base it was trained on"):
        build(str(copy), ["F16"], tmp_path / "out", tmp_path / "lora")
    save_file({"base_model.model.lm_head.weight": torch.zeros(4, 4)}, weights)
    with pytest.raises(InputError, match="no LoRA matrix"):
        build(str(copy), ["F16"], tmp_path / "out", tmp_path / "lora")
    (tmp_path / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 0, "lora_alpha": 8}')
    with pytest.raises(InputError, match=r"adapter_config\.json: r must be a whole number >= 1, found 0"):
        build(str(copy), ["F16"], tmp_path / "out", tmp_path / "lora")


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's API as a snapshot download asks for; the first large file breaks off once."""

    folder: Path
    cut = True
    ranges: list[str]

    def do_HEAD(self) -> None:
        self._reply(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": path.name} for path in self.folder.iterdir()]
            data = json.dumps({"id": "owner/tiny", "sha": "a" * 40, "siblings": siblings}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        else:
            self._reply(body=True)

    def _reply(self, body: bool) -> None:
        data = (self.folder / self.path.rpartition("/")[2]).read_bytes()
        begin = 0
        if wanted := self.headers.get("Range"):
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            type(self).ranges.append(wanted)
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if body and len(data) > 10**6 and type(self).cut:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(data[begin:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(made: Path) -> Iterator[str]:
    Hub.folder, Hub.cut, Hub.ranges = made, True, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_broken_download_from_the_hub_is_resumed(
    hub: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("HF_ENDPOINT", hub),
        ("HF_HOME", str(tmp_path)),
        ("HF_HUB_DISABLE_XET", "1"),
        ("HF_HUB_OFFLINE", "0"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
        ("no_proxy", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    code = "from edge_tts.export.checkpoint import locate; print(locate('owner/tiny'))"
    broken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert broken.returncode == 1
    assert "could not be downloaded from the hub" in broken.stderr
    Hub.cut, Hub.ranges = False, []
    whole = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert whole.returncode == 0, whole.stderr
    found = checkpoint.open_checkpoint(Path(whole.stdout.strip()))
    assert found.tensors.keys() == checkpoint.open_checkpoint(made).tensors.keys()
    assert Hub.ranges
    assert all(not r.startswith("bytes=0-") for r in Hub.ranges)
