"""What is made of experiments: pages, figures, and studies of their own, each `python -m forgetless.studies.NAME`."""
