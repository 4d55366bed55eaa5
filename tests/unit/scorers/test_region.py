"""What is ignored has no influence, and what is judged is what it would be without."""

import pytest
import torch

from anomalib_dpclip.method.anomaly_map import blur_grid
from anomalib_dpclip.scorers.region import IgnoredRegion

JUDGED = torch.ones(8, 8, dtype=torch.bool)
JUDGED[:3, :4] = False  # a token and a half high, two tokens wide


def region():
    return IgnoredRegion(JUDGED, (4, 4), (8, 8))


def test_tokens_are_judged_that_see_nothing_ignored():
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[:2, :2] = False
    assert torch.equal(region().tokens, expected)


def test_ignored_pixels_get_the_mean_colour_of_the_others():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    painted = region().paint_over(images)
    assert torch.equal(painted[..., JUDGED], images[..., JUDGED])
    torch.testing.assert_close(painted[1, 2, 0, 0], images[1, 2][JUDGED].mean())
    images[..., ~JUDGED] = 7
    assert torch.equal(region().paint_over(images), painted)


@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_smoothing_takes_judged_tokens_alone(domain):
    grid, tokens = (12, 12), torch.ones(12, 12, dtype=torch.bool)
    tokens[:5, :5] = False
    some = IgnoredRegion(tokens.repeat_interleave(2, 0).repeat_interleave(2, 1), grid, (24, 24))
    values = torch.rand(2, *grid, generator=torch.Generator().manual_seed(0))

    def blur(each):
        return blur_grid(each, domain)

    smooth = some.smooth(values, blur)
    changed = values.clone()
    changed[:, ~tokens] = 100
    assert torch.equal(some.smooth(changed, blur), smooth)
    torch.testing.assert_close(smooth[:, 10:, 10:], blur(values)[:, 10:, 10:])  # far from it
    torch.testing.assert_close(some.smooth(torch.full((1, *grid), 0.3), blur), torch.full((1, *grid), 0.3))
    by_hand = (blur(values * tokens) / blur(tokens.float()[None]))[0, 5, 4]
    torch.testing.assert_close(smooth[0, 5, 4], by_hand)


def test_where_no_judged_token_is_near_the_mean_stands():
    tokens = torch.zeros(20, 20, dtype=torch.bool)
    tokens[:, 19] = True
    some = IgnoredRegion(tokens, (20, 20), (20, 20))
    values = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        some.smooth(values, lambda each: blur_grid(each, "industrial"))[0, 5, 0], values[0, :, 19].mean()
    )


def test_maps_are_0_where_nothing_is_judged():
    maps = torch.full((2, 8, 8), 0.7)
    hidden = region().hide(maps)
    assert (hidden[:, ~JUDGED] == 0).all()
    assert torch.equal(hidden[:, JUDGED], maps[:, JUDGED])


def test_a_photo_of_another_size():
    region().require_size(8, 8, "a.png")
    with pytest.raises(ValueError, match=r"a\.png is 8x6, and the picture of what to ignore is 8x8: draw it on"):
        region().require_size(8, 6, "a.png")


@pytest.mark.parametrize(("judged", "message"), [(False, "leaves nothing to judge"), (True, "black all over")])
def test_all_or_nothing(judged, message):
    with pytest.raises(ValueError, match=message):
        IgnoredRegion(torch.full((8, 8), judged), (4, 4), (8, 8))
