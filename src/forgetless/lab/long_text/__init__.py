"""Language models of long texts: corpora, vocabularies, training by windows, bits per character, and writing."""
