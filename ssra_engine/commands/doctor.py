"""`ssra-engine doctor`."""

from __future__ import annotations

import json

import click

from ssra_engine.commands.options import json_option

__all__ = ["doctor"]


@click.command(short_help="Say what this machine can run.")
@click.option("--trt-python", help="Python interpreter that has TensorRT-LLM.")
@click.option("--vllm-python", help="Python interpreter that has vLLM.")
@json_option
def doctor(trt_python: str | None, vllm_python: str | None, as_json: bool) -> None:
    """Print versions, CPU features, and which engines can run here and why the others cannot.

    \b
    Examples:
      ssra-engine doctor
      ssra-engine doctor --vllm-python vllm-env/bin/python
    """
    from ssra_engine.doctor import diagnose, diagnosis_text

    report = diagnose({"tensorrt_llm": trt_python, "vllm": vllm_python})
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        click.echo(diagnosis_text(report))
