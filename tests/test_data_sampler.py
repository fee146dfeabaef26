import tracemalloc

import pytest

from facelm.data.sampler import EpochBatches, Keys


def batches(size, batch_size, **options):
    return list(EpochBatches(size, batch_size, **options))


class TestOrder:
    def test_every_face_once(self):
        keys = [key for batch in batches(10, 4) for key in batch]
        assert sorted(index for _, index in keys) == list(range(10))

    def test_epochs_differ_and_repeat(self):
        sampler = EpochBatches(50, 50, seed=1)
        first = list(sampler)
        sampler.set_epoch(1)
        second = list(sampler)
        sampler.set_epoch(0)
        assert list(sampler) == first
        assert [i for _, i in second[0]] != [i for _, i in first[0]]
        assert {epoch for epoch, _ in second[0]} == {1}

    def test_seeds_differ(self):
        assert batches(50, 50, seed=1) != batches(50, 50, seed=2)

    def test_without_shuffling(self):
        assert batches(3, 2, shuffle=False) == [[(0, 0), (0, 1)], [(0, 2)]]


class TestRanks:
    @pytest.mark.parametrize("size", [16, 17, 21])
    def test_ranks_together_see_the_batches_of_one_process(self, size):
        alone = batches(size, 4)
        ranks = [batches(size, 2, rank=rank, world_size=2) for rank in (0, 1)]
        together = [a + b for a, b in zip(*ranks, strict=True)]
        for one, both in zip(alone, together, strict=True):
            assert both[: len(one)] == one  # an odd last batch is filled up from the start of the order

    def test_ranks_have_as_many_batches_and_faces(self):
        ranks = [batches(7, 2, rank=rank, world_size=2, shuffle=False) for rank in (0, 1)]
        assert [len(batch) for batch in ranks[0]] == [len(batch) for batch in ranks[1]]
        assert {index for rank in ranks for batch in rank for _, index in batch} == set(range(7))

    def test_drop_last(self):
        assert [len(batch) for batch in batches(11, 4, drop_last=True)] == [4, 4]


class TestPosition:
    def test_starts_in_the_middle(self):
        whole = batches(20, 4, seed=3)
        sampler = EpochBatches(20, 4, seed=3, start=lambda: 2)
        assert list(sampler) == whole[2:]
        assert len(sampler) == 5


class TestManyFaces:
    def test_a_million_are_no_list_of_numbers(self):
        tracemalloc.start()
        batches = iter(EpochBatches(1_000_000, 16))
        next(batches)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 20e6  # an order of 8 MB, twice; a list of keys takes over 100

    @pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
    def test_keys_are_those_of_the_batches(self, rank, world_size):
        sampler = EpochBatches(23, 4, rank=rank, world_size=world_size)
        keys = Keys(sampler)
        assert list(keys) == [key for batch in sampler for key in batch]
        assert len(keys) == len(list(keys))
