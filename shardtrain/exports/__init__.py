"""Write a run as a file for other programs: a bundle, arrays, a SavedModel, an ONNX graph."""
