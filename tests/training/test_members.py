"""A member equals the run trained alone."""

import numpy as np
import pytest
from small import assert_same_run, last_checkpoint, run, small_config, tiny_network  # noqa: F401


@pytest.mark.usefixtures("tiny_network")
def test_members_equal_the_run_alone(tmp_path):
    config = small_config(steps=4)
    config.train.seed = 1
    run(config, tmp_path / "alone")
    for by in ("turn", "vmap"):
        config = small_config(steps=4)
        config.train.members, config.train.members_by = "2", by
        reports = run(config, tmp_path / by)
        assert {r.member for r in reports} == {0, 1}
    assert_same_run(tmp_path / "turn" / "member_1", tmp_path / "alone")
    one, other = (last_checkpoint(tmp_path / d)[1] for d in ("vmap/member_1", "alone"))
    for path, value in one.items():
        np.testing.assert_allclose(value, other[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_members_are_checked(tmp_path):
    for text, match in (("none of", "must be a number"), ("train.sed=1", "train.seed")):
        config = small_config(model="lenet5_modern")
        config.train.members = text
        with pytest.raises(ValueError, match=match):
            run(config, tmp_path)
