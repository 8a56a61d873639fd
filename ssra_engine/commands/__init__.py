"""The commands: they parse, call the pipeline and print.

What a command needs is imported when it runs, so that `--help` is quick.
"""
