"""Bundle in, conversation out: numpy arrays only, neither torch nor onnx."""
