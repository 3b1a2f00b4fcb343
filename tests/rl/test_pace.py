"""Generation slows down while batches wait, and comes back while the trainer does."""

from arcforge.rl.pace import INTERVAL, Pace


def limits(pace, ready, looks, start=0.0):
    found = []
    for look in range(looks):
        pace.look(ready, start + look * INTERVAL)
        found.append(pace.limit)
    return found


def test_it_starts_at_full_speed_and_stays_there_while_the_trainer_waits():
    assert limits(Pace(64, 4), ready=0, looks=5) == [64] * 5


def test_waiting_batches_slow_it_down_to_an_eighth_and_no_further():
    found = limits(Pace(64, 4), ready=7, looks=40)
    assert found[0] == 58 and found == sorted(found, reverse=True) and found[-1] == 8
    assert limits(Pace(3, 1), ready=9, looks=40)[-1] == 1


def test_it_recovers_and_rests_in_between():
    pace = Pace(64, 4)
    slow = limits(pace, ready=7, looks=10)[-1]
    assert limits(pace, ready=5, looks=5, start=100) == [slow] * 5
    found = limits(pace, ready=3, looks=10, start=200)
    assert found[0] > slow and found[-1] == 64


def test_it_changes_at_most_once_per_interval():
    pace = Pace(64, 4)
    assert pace.look(9, 0.0) and not pace.look(9, 0.9 * INTERVAL) and pace.look(9, INTERVAL)
