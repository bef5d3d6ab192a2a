"""ONNX programs of modules, and what onnxruntime computes with them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.conftest import Both

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

BATCH = torch.export.Dim.DYNAMIC


def exported(module: Any, images: Sequence[Any], **options: Any) -> Any:
    """Return the ONNX program of a module for images of any number of samples."""
    shapes: Any = tuple({0: BATCH} for _ in images)
    if type(module).forward is Both.forward:
        shapes = (shapes,)
    options = {"dynamic_shapes": shapes, "dynamo": True, "verbose": False} | options
    program = torch.onnx.export(module.eval(), tuple(images), **options)
    onnx.checker.check_model(program.model_proto, full_check=True)
    assert {node.domain for node in program.model.graph} == {""}  # ONNX's own operators
    return program


def run(program: Any, images: Sequence[Any]) -> list[Any]:
    """Return what onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    values = [image.numpy() for image in images]
    results: list[Any] = session.run(None, dict(zip(names, values, strict=True)))
    return results
