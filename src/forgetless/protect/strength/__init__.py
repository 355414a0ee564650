"""Which λ? One file per answer: searched beforehand (`stability`), or moved while training goes on (`Dial`s)."""
