"""What the kernels share: what a rule is, per-sample gradients in compact form, the compiled pass."""
