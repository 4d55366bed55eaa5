"""The frozen towers, and the mini CLIP that comes with the package: nothing that learns, or knows what tokens are used for."""
