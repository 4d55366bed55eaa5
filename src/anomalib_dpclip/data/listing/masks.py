"""The rule for masks that a list of labelled images must keep, the same where it is checked and where it is used."""

from collections.abc import Iterable


def missing_masks(samples: Iterable[tuple[bool, bool]]) -> list[int]:
    """Anomalous images without a mask where others have one; a list without any masks is complete as it is.

    Args:
        samples: Whether each image is anomalous, and whether it has a mask.

    Returns:
        Positions of those without.

    Example:
        >>> missing_masks([(False, False), (True, True), (True, False)])
        [2]
    """
    anomalous = [(index, has_mask) for index, (is_anomalous, has_mask) in enumerate(samples) if is_anomalous]
    return [index for index, has_mask in anomalous if not has_mask] if any(has for _, has in anomalous) else []
