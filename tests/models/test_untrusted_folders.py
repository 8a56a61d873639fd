"""A model folder from a stranger: nothing in it is run, and nothing is fetched for it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import load_backbone

# Opens a model where every way to the network raises, and where the hub is not said to be offline.
_ALONE = """
import socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"the network was asked for {arguments[1:]}")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse
socket.getaddrinfo = refuse
from ssra_engine.engines import load_engine
from ssra_engine.errors import EngineError

engine = load_engine(sys.argv[1], backend="torch", dtype="float32")
engine.close()
for name in ("bert-base-uncased", "someone/some-model", sys.argv[1] + "-not-there"):
    try:
        load_engine(name, backend="torch")
    except EngineError as error:
        assert "no such model folder" in str(error), error
    else:
        raise AssertionError(name)
"""


class _Mark:
    """Its pickle, opened as one, leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_nothing_is_fetched(llama_folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(llama_folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def test_a_pickled_adapter_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    mark, adapter = tmp_path / "was-run", tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(_Mark(mark)))
    with pytest.raises(EngineError, match=r"adapter_model\.safetensors.*pickle"):
        load_backbone(llama_folder, adapter=adapter)
    assert not mark.exists()


def test_a_pickle_beside_the_weights_is_not_opened(llama_folder: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "was-run"
    shutil.copytree(llama_folder, folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(_Mark(mark)))
    load_backbone(folder)
    assert not mark.exists()


def test_code_of_a_tokenizer_is_not_run(llama_folder: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "was-run"
    shutil.copytree(llama_folder, folder)
    (folder / "code.py").write_text(f"open({str(mark)!r}, 'w')\nclass T: pass\n")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["code.T", "code.T"]}}))
    try:
        load_backbone(folder)
    except EngineError as error:
        assert "trust_remote_code" in str(error)  # noqa: PT017
    assert not mark.exists()


def test_pickled_weights_of_an_embedder_run_nothing(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    from ssra_engine.evaluation.embedding import load_model

    folder, mark = tmp_path / "embedder", tmp_path / "was-run"
    small = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    BertModel(small).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Mark(mark)))
    with pytest.raises(EngineError, match="cannot be opened"):
        load_model(folder)
    assert not mark.exists()
