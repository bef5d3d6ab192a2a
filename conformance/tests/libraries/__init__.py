"""Libraries that few have: MLX on its CPU, a stand-in for CuPy, ONNX's runtime."""
