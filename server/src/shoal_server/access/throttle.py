"""How long to wait after failed log-ins. Pure; the counts are kept in the database, so a restart forgives nothing."""

FREE_FAILURES = 5
LONGEST_WAIT_S = 60.0
FORGOTTEN_AFTER_S = 3600.0


def wait_s(*, failures: int, last_at: float, now: float) -> float:
    """Return the seconds until the next try is allowed; 0 when it is allowed now.

    The first five failures are free, then the wait doubles from one second up to a minute: a guesser gets 1,440 tries
    a day, a person who forgot a password is never locked out for long, not even when the clock was set back.
    """
    if failures < FREE_FAILURES or _forgotten(last_at, now):
        return 0.0
    pause = min(LONGEST_WAIT_S, 2.0 ** min(failures - FREE_FAILURES, 30))
    return max(0.0, last_at + pause - now)


def failures_after(*, failures: int, last_at: float, now: float) -> int:
    """Return the count after one more failure at `now`."""
    return 1 if _forgotten(last_at, now) else failures + 1


def _forgotten(last_at: float, now: float) -> bool:
    """Tell whether a failure is long ago, or so far ahead that the clock must have been set back since."""
    return not -LONGEST_WAIT_S <= now - last_at <= FORGOTTEN_AFTER_S
