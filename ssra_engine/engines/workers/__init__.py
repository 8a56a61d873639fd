"""Files that run in another interpreter, beside an engine that cannot live in ours.

They are run by path and import the standard library, pyarrow and their own engine only.
"""
