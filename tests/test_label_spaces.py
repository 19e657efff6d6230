from ddps.label_spaces import ADE20K_NAMES, ADE20K_PALETTE, CITYSCAPES_NAMES, CITYSCAPES_PALETTE


def test_every_class_has_a_name_and_a_colour():
    assert len(ADE20K_NAMES) == len(set(ADE20K_NAMES)) == len(ADE20K_PALETTE) == 150
    assert len(CITYSCAPES_NAMES) == len(CITYSCAPES_PALETTE) == 19
    assert all(len(colour) == 3 and all(0 <= c <= 255 for c in colour) for colour in ADE20K_PALETTE)


def test_both_ends_and_the_middle_of_ade20k():
    """As the field's tools have them: an off-by-one in the table would show."""
    found = {name: colour for name, colour in zip(ADE20K_NAMES, ADE20K_PALETTE, strict=True)}
    assert found["wall"] == (120, 120, 120) and found["building"] == (180, 120, 120)
    assert found["person"] == (150, 5, 61) and found["flag"] == (92, 0, 255) and found["clock"] == (102, 255, 0)
