"""Time several functions in turn, so that a change of the machine's speed meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def in_turn(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each function over `rounds` rounds of all, after one round that is not counted.

    clock: returns seconds; time.process_time counts those of this process on all its cores.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = clock()
            function()
            if turn:
                times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}
