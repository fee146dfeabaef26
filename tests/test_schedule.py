import pytest

from facelm.training.schedule import WarmupCosine, WarmupMultiStep, clip_warmup, warmup

LONG = {"iterations_per_epoch": 50, "total_iterations": 3000}


class TestWarmup:
    def test_reaches_one_after_n_minus_one_steps_as_mmengine_does(self):
        assert warmup(0, 500, 0.001) == pytest.approx(0.001)
        assert warmup(498, 500, 0.001) < 1.0
        assert warmup(499, 500, 0.001) == 1.0

    @pytest.mark.parametrize("iterations", [0, 1])
    def test_none(self, iterations):
        assert warmup(0, iterations, 0.001) == 1.0

    def test_clip(self):
        assert clip_warmup(500, 420) == 42
        assert clip_warmup(500, 30000) == 500


class TestMultiStep:
    def test_milestones_are_epochs(self):
        schedule = WarmupMultiStep(milestones=(40, 55))
        factors = [schedule.factor(epoch * 50, **LONG) for epoch in (0, 39, 40, 54, 55, 59)]
        assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
        assert schedule.factor(40 * 50 - 1, **LONG) == pytest.approx(1.0)

    def test_warmup_and_milestones_multiply(self):
        schedule = WarmupMultiStep(milestones=(1,), warmup_iterations=101, warmup_start=0.0)
        assert schedule.factor(50, **LONG) == pytest.approx(0.5 * 0.1)


class TestCosine:
    def test_ends_at_final(self):
        schedule = WarmupCosine(final=0.05, warmup_iterations=10)
        assert schedule.factor(2999, **LONG) == pytest.approx(0.05)
        assert schedule.factor(10, **LONG) == pytest.approx(1.0)

    def test_falls_all_the_way(self):
        schedule = WarmupCosine(warmup_iterations=10)
        factors = [schedule.factor(i, **LONG) for i in range(10, 3000)]
        assert all(a >= b for a, b in zip(factors, factors[1:], strict=False))
