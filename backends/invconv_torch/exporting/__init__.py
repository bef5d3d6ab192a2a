"""Layers in ONNX files, and decompositions of our operators for programs of torch.export."""
