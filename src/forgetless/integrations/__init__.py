"""Protection in other people's trainers: a file each, which imports its package when it is used."""
