"""The data sets of the method's experiments: what they are called, what their classes show, and of which domain they are.

Names alone: nothing here reads a file, and nothing knows a model.
"""
