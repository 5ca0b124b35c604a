"""Buckets: the sizes that a video may have, and the one that a picture gets."""

import pytest

from diffusers_helper.buckets import bucket_table, nearest_bucket, video_size


def test_the_table_for_640_is_the_models_own():
    lying = [(416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640)]
    assert bucket_table(640) == lying + [(width, height) for height, width in reversed(lying)]


@pytest.mark.parametrize("resolution", [256, 320, 384, 480, 512, 576, 704, 720, 768, 960, 1024, 1280, 1536])
def test_other_tables_are_of_the_same_kind(resolution):
    table = bucket_table(resolution)
    assert table == sorted(table)
    assert all(side % 32 == 0 for bucket in table for side in bucket)
    assert {(width, height) for height, width in table} == set(table)
    for height, width in table:
        assert height * width == pytest.approx(resolution**2, rel=0.26 if resolution < 320 else 0.16)
    widest = max(width / height for height, width in table)
    assert widest == pytest.approx(960 / 416, rel=0.12)


def test_a_picture_of_a_buckets_shape_gets_it():
    for height, width in bucket_table(640):
        assert nearest_bucket(height * 3, width * 3, 640) == (height, width)


def test_of_two_buckets_as_near_the_taller_one_is_taken():
    # |1 * width - 1 * height| of a square picture is 32 for 608x640 and for 640x608
    assert nearest_bucket(100, 100, 640) == (640, 608)


def test_extreme_shapes_get_the_outermost_bucket():
    assert nearest_bucket(20, 4000, 640) == (416, 960)
    assert nearest_bucket(4000, 20, 640) == (960, 416)


def test_the_video_has_the_size_asked_for_else_the_bucket_nearest_to_its_picture():
    assert video_size(640, None, None, 3000, 4000) == nearest_bucket(3000, 4000, 640)
    assert video_size(320, None, None, 4000, 3000) == nearest_bucket(4000, 3000, 320)
    assert video_size(320, 96, 64, 3000, 4000) == (64, 96)
