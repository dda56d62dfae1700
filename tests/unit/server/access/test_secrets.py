"""How passwords are hashed."""

import threading
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher

from shoal_server.access.secrets import Passwords


class CountingHasher(PasswordHasher):
    """Counts how many tries run at the same time, and lets them meet."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.now = self.most = 0
        self.lock, self.fifth = threading.Lock(), threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # noqa: A002 - the library's name
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now > 4:
                self.fifth.set()
        self.fifth.wait(0.05)
        with self.lock:
            self.now -= 1
        return super().verify(hash, password)


def test_tries_at_the_same_time_are_bounded() -> None:
    hasher = CountingHasher()
    passwords = Passwords(hasher)
    stored = passwords.hash("long enough 1")
    with ThreadPoolExecutor(12) as pool:
        tries = [pool.submit(passwords.verify, stored, "long enough 1") for _ in range(12)]
    assert all(one.result() for one in tries)
    assert hasher.most <= 4
