"""Whether an importance is exact, parameter by parameter: what `forgetless verify` shows."""
