"""Graph in, graph out: what happens to an ONNX model between a framework's exporter and the bundle."""
