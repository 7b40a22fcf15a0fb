"""Which bytes become which requests."""

from __future__ import annotations

import random

from tests.checkpoints.streaming.landings import BytesLanding

from bloomery.checkpoints.source import Entry
from bloomery.checkpoints.streaming.blocks import Block, Segment, cut_into_blocks

FILE = Entry("a.safetensors", 10_000_000, "1")


def segment(start: int, length: int, position: int = 0, entry: Entry = FILE) -> Segment:
    return Segment(BytesLanding(position + length), entry, start, position, length)


def spans(blocks: list[Block]) -> list[tuple[int, int]]:
    return [(block.start, block.length) for block in blocks]


def test_segments_that_touch_are_one_request_whatever_the_order_of_asking() -> None:
    assert spans(cut_into_blocks([segment(300, 50), segment(100, 200), segment(400, 10)])) == [(100, 250), (400, 10)]


def test_segments_of_different_files_are_not_joined() -> None:
    other = Entry("b.safetensors", 1000, "1")
    assert len(cut_into_blocks([segment(0, 100), segment(100, 100, entry=other)])) == 2


def test_a_long_segment_becomes_equal_requests_that_cut_no_element() -> None:
    blocks = cut_into_blocks([segment(7, 10_000, position=48)], size=3000)

    assert [block.length for block in blocks] == [2496, 2496, 2496, 2512]
    assert all((block.segments[0].position) % 16 == 0 for block in blocks)


def test_small_tensors_are_joined_up_to_the_size_of_a_request() -> None:
    blocks = cut_into_blocks([segment(100 * index, 100) for index in range(10)], size=250)

    assert [len(block.segments) for block in blocks] == [2] * 5


def test_whatever_is_asked_for_arrives_once_and_in_its_place() -> None:
    random.seed(3)
    for _ in range(200):
        data = random.randbytes(20_000)
        landings: dict[BytesLanding, bytes] = {}
        segments, start = [], random.randrange(100)
        for _ in range(random.randint(1, 6)):
            length, position = random.randint(1, 3000), 16 * random.randint(0, 3)
            landing = BytesLanding(position + length)
            segments.append(Segment(landing, FILE, start, position, length))
            landings[landing] = bytes(position) + data[start : start + length]
            start += length + random.choice([0, 0, random.randint(1, 50)])
        for block in cut_into_blocks(segments, size=random.choice([500, 4000])):
            offset = 0
            while offset < block.length:
                count = block.cut(offset, random.randint(16, 700))
                assert count > 0
                begin = block.start + offset
                block.deliver(offset, memoryview(data[begin : begin + count]))
                offset += count
        assert all(bytes(landing.data) == expected for landing, expected in landings.items())
