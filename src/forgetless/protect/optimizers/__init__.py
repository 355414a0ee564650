"""How an anchor acts on an optimizer: one file per way, each an `Attachment`; `forms` says how far optimizers move."""
