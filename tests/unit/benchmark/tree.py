"""MVTec AD in miniature."""

import numpy as np
from PIL import Image


def mvtec_tree(root):
    """Three categories of dark images, anomalous ones with a bright square."""
    generator = np.random.default_rng(0)
    for category in ("bottle", "hazelnut", "tile"):
        for folder, count in (("train/good", 4), ("test/good", 3), ("test/broken", 3)):
            for index in range(count):
                image = generator.integers(0, 100, (40, 40, 3), dtype=np.uint8)
                path = root / category / folder / f"{index:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if folder.endswith("broken"):
                    image[8:20, 8:20] = 250
                    mask = root / category / "ground_truth" / "broken" / f"{index:03}_mask.png"
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image // 250 * 255).save(mask)
                Image.fromarray(image).save(path)
    return root
