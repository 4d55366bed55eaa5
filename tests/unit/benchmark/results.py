from anomalib_dpclip.benchmark.rows import Result, write_result, write_tables

PROVENANCE = {"command": "dpclip benchmark --config x.yaml", "machine": "a machine"}

ROW = {"label": "A", "model": "M", "knows": "nothing", "data_set": "Surfaces", "category": "weave", "seed": "1", "draw": ""}
ROW |= {"accelerator": "cpu", "status": "ok", "reason": ""}


def write_results(path, *rows):
    """Write jobs and tables of rows; ``scores`` and ``labels`` of one are its images', whose names are ``images``."""
    for number, given in enumerate(rows):
        cells = dict(given)
        scores, labels = cells.pop("scores", []), cells.pop("labels", [])
        names = cells.pop("images", [f"test/{index:03}.png" for index in range(len(scores))])
        shift, root = cells.pop("shift", []), cells.pop("root", "")
        images = [
            {
                "image": name,
                "defect": "crack" * bool(label),
                "label": int(label),
                "score": float(score),
                "called": int(score > 0.5),
            }
            for name, score, label in zip(names, scores, labels, strict=True)
        ]
        write_result(path, Result({**ROW, "key": f"{path.stem}{number}", **cells}, images, shift, root))
    write_tables(path, PROVENANCE)
    return path
