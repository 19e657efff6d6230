"""Networks: tensors in, tensors out. No files."""
