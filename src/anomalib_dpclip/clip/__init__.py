"""The frozen towers: building them, reading their weights, and the mini CLIP that comes with the package.

Nothing that learns belongs here, and nothing that knows what the tokens are used for.
"""
