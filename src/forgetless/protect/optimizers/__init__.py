"""How an anchor acts on an optimiser: one file per way, each an `Attachment`; `forms` says how far optimisers move."""
