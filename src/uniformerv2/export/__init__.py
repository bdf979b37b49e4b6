"""Networks that leave the workshop: ONNX, .pt2, OpenVINO, a portable folder; verified before they have a name."""
