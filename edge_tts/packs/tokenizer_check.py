"""Checks, from the files alone, that a PRM can be loaded and that a tokenizer is its own."""

from __future__ import annotations

from pathlib import Path

from edge_tts.files.integrity import sha256


def prm_problems(model: Path, tokenizer: Path) -> list[str]:
    """One sentence for each reason why the PRM ``model`` cannot be used with ``tokenizer``; none if it can.

    The ONNX metadata of an exported PRM state the sha256 of its tokenizer.
    """
    from tokenizers import Tokenizer

    from edge_tts.runtimes.privacy import import_onnxruntime

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        return [f"{model} is damaged and cannot be loaded by ONNX Runtime ({_first_line(error)})"]
    try:
        Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # tokenizers raises a bare Exception
        return [f"{tokenizer} is damaged and cannot be read as a tokenizer ({_first_line(error)})"]
    try:
        wanted = session.get_modelmeta().custom_metadata_map.get("tokenizer_sha256", "none")
    except UnicodeDecodeError as error:  # its metadata may be any bytes
        return [f"{model} is damaged: its metadata are no text ({error})"]
    found = sha256(tokenizer)
    if found != wanted:
        return [
            f"{tokenizer} does not fit its PRM {model.name}: its sha256 is {found}, the PRM was exported with {wanted}"
        ]
    return []


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
