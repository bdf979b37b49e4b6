"""Networks that leave the workshop: ONNX, OpenVINO, a portable folder; verified before they have a name."""
