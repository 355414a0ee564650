"""Where protection matters: frontiers of old skill against new skill, for pictures and for language models."""
